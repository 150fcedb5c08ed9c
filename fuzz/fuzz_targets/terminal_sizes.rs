//! The sizes of a terminal that a client sends: however they are cut, the last one is the same. What
//! is no size may be refused as soon as it shows, or with what follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streaming::{Size, probe::last_size};

/// One that nobody else says.
const MARK: Size = Size { width: 54_321, height: 12_345 };

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    // What is longer may be refused as a whole, and taken in pieces.
    let bytes = &bytes[..bytes.len().min(4000)];
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(cut).max(1)).collect();
    let (parts, whole) = (last_size(&pieces), last_size(&[bytes]));
    if parts.is_some() {
        assert_eq!(parts, whole);
    } else if whole != Some(Some(MARK)) {
        let mark = format!(r#"{{"Width":{},"Height":{}}}"#, MARK.width, MARK.height);
        let followed = last_size(&[bytes, mark.as_bytes()]);
        assert_ne!(followed, Some(Some(MARK)), "refused in pieces, and good as a whole");
    }
});
