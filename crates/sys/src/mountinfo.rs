//! How the kernel writes paths in its table of mounts (`proc_pid_mountinfo(5)`): space, tab, newline
//! and backslash as a backslash and three octal digits.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// The path that a field of the table stands for.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match after.get(..3).and_then(octal).filter(|_| first == b'\\') {
            Some(byte) => {
                text.push(byte);
                rest = &after[3..];
            }
            None => {
                text.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(text).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_escaped_backslash_does_not_begin_another_escape() {
        assert_eq!(unescape(b"/a\\134040b"), Path::new("/a\\040b"));
        assert_eq!(unescape(b"/with\\040space\\011"), Path::new("/with space\t"));
        assert_eq!(unescape(b"/plain\\"), Path::new("/plain\\"));
    }
}
