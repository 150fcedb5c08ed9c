//! How a layer says that something beneath it is gone: as a name in an archive, `.wh.name`, and on
//! disk as overlayfs wants it.

use std::{io, os::fd::AsFd};

use rustix::{
    fs::{FileType, Mode, Stat, XattrFlags},
    io::Errno,
};

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// What a name in an archive stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// A file of this layer.
    None,
    /// The name beneath is gone.
    Gone(&'a [u8]),
    /// All that is beneath the directory is gone.
    Opaque,
    /// Bookkeeping of a union filesystem of old, which means nothing here.
    Meta,
}

/// Reads the last name of a path.
pub fn mark(name: &[u8]) -> Result<Mark<'_>, &'static str> {
    if name == OPAQUE {
        return Ok(Mark::Opaque);
    }
    if name.starts_with(META) {
        return Ok(Mark::Meta);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Mark::None),
        Some(b"" | b"." | b"..") => Err("it would take away a directory itself"),
        Some(gone) => Ok(Mark::Gone(gone)),
    }
}

/// Whether it is what [`make`] makes.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes the name of something gone: a character device 0:0.
pub fn make(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    let mode = Mode::empty();
    Ok(rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, 0)?)
}

/// Makes a directory, opened for reading, hide what is beneath it.
pub fn make_opaque(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

/// Whether a directory hides what is beneath it.
pub fn is_opaque(dir: impl AsFd) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value[..]) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The archive's name for the name of something gone.
pub fn gone(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}

/// The archive's name for an opaque directory's mark.
pub fn opaque() -> &'static [u8] {
    OPAQUE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_takes_away_a_name_and_never_a_directory_itself() {
        assert_eq!(mark(b"file"), Ok(Mark::None));
        assert_eq!(mark(b".wh.file"), Ok(Mark::Gone(b"file")));
        assert_eq!(mark(b".wh..wh..opq"), Ok(Mark::Opaque));
        assert_eq!(mark(b".wh..wh.plnk"), Ok(Mark::Meta));
        for bad in [b".wh.".as_slice(), b".wh..", b".wh..."] {
            assert!(mark(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert_eq!(mark(b".wh...."), Ok(Mark::Gone(b"...")));
        assert_eq!(mark(&gone(b"x")), Ok(Mark::Gone(b"x")));
    }
}
