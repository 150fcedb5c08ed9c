//! Finding a busybox that can run alone in a root filesystem: one without a dynamic linker.

use std::path::{Path, PathBuf};

use crate::error::{DemoError, Error};

/// Where distributions put it; the first is that of Debian's busybox-static, and may be a dynamic
/// one elsewhere.
const PLACES: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];

pub struct Busybox {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

impl Busybox {
    /// In bytes.
    pub fn size(&self) -> u64 {
        self.content.len().try_into().unwrap_or(u64::MAX)
    }
}

pub fn find() -> Result<Busybox, Error> {
    let usable = |place: &str| {
        let content = std::fs::read(place).ok().filter(|content| is_static(content))?;
        Some(Busybox { path: Path::new(place).to_owned(), content })
    };
    PLACES.into_iter().find_map(usable).ok_or_else(|| DemoError::NoBusybox.into())
}

/// Whether these are the bytes of an ELF program that asks for no interpreter.
pub fn is_static(elf: &[u8]) -> bool {
    program_headers(elf).is_some_and(|types| !types.contains(&PT_INTERP))
}

const PT_INTERP: u32 = 3;

/// The types of the program headers; None when it is not an ELF file, or is cut off.
fn program_headers(elf: &[u8]) -> Option<Vec<u32>> {
    let ident: &[u8; 6] = elf.first_chunk().filter(|ident| ident.starts_with(b"\x7fELF"))?;
    let little = ident[5] == 1;
    // Where the table is, the size of an entry, and their number: ELFCLASS64 or ELFCLASS32.
    let (table, size, count) = match ident[4] {
        2 => (number(elf, 0x20, 8, little)?, 0x36, 0x38),
        1 => (number(elf, 0x1c, 4, little)?, 0x2a, 0x2c),
        _ => return None,
    };
    let size = number(elf, size, 2, little)?;
    let count = number(elf, count, 2, little)?;
    let header = |index: u64| {
        let at = index.checked_mul(size)?.checked_add(table)?;
        u32::try_from(number(elf, usize::try_from(at).ok()?, 4, little)?).ok()
    };
    (0..count).map(header).collect()
}

/// A number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize, little: bool) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let join = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    Some(match little {
        true => field.iter().rev().fold(0, join),
        false => field.iter().fold(0, join),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A 64 bit little endian program with headers of these types.
    fn elf(types: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[0x20], elf[0x36], elf[0x38]) = (64, 56, u8::try_from(types.len()).expect("few"));
        for kind in types {
            elf.push(*kind);
            elf.resize(elf.len() + 55, 0);
        }
        elf
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(is_static(&elf(&[1, 1, 4])));
        assert!(!is_static(&elf(&[6, 3, 1])));
    }

    #[test]
    fn our_own_test_is_dynamic_if_it_has_a_linker() {
        let this = std::fs::read("/proc/self/exe").expect("we can read ourselves");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("we can read our maps");
        assert_eq!(is_static(&this), !maps.contains("/ld-"));
    }

    #[test]
    fn what_is_cut_off_or_a_script_is_no_program() {
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&elf(&[1, 1])[..100]));
        assert!(!is_static(b""));
    }

    proptest! {
        #[test]
        fn no_file_makes_us_panic(
            tail in prop::collection::vec(any::<u8>(), 0..300), class in 0..4_u8, order in 0..3_u8,
        ) {
            is_static(&[b"\x7fELF", &[class, order][..], &tail].concat());
        }
    }
}
