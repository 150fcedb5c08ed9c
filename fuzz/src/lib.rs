//! What targets have in common: a place for what they write, and archives of which a changed byte is
//! not found out by a checksum. What is fuzzed, and what must hold, is in the targets themselves.

use std::path::PathBuf;

const BLOCK: usize = 512;

/// A new directory in TMPDIR. It stays: a fuzzer ends by a signal or by `_exit`, and whoever runs it
/// sets TMPDIR and removes that.
pub fn place(name: &str) -> PathBuf {
    let made = tempfile::Builder::new().prefix(name).tempdir();
    made.expect("a directory can be made in TMPDIR").keep()
}

/// Puts the checksums of a tar archive right, as far as its headers can be followed by their sizes.
pub fn mend(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        let size = size(header);
        seal(header);
        at = at.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
}

fn size(header: &[u8; BLOCK]) -> usize {
    let text = String::from_utf8_lossy(&header[124..136]);
    usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).unwrap_or(0)
}

/// A block of zeros is the end of an archive and has no checksum.
fn seal(header: &mut [u8; BLOCK]) {
    if header.iter().any(|byte| *byte != 0) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
