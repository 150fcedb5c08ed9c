//! Reading a small file beneath an untrusted root filesystem, such as its `/etc/passwd`. The path
//! is resolved as the container would resolve it, so that no link leads out; what is not a regular
//! file is never opened, since opening a FIFO hangs and opening a device may act (CVE-2024-9676).

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::beneath;

/// Reads the regular file at `path` (absolute or relative, the root is `root` either way).
/// `None` if there is no such file.
///
/// # Errors
/// `InvalidData` if it is not a regular file or longer than `limit` bytes; else of the kernel
/// (`ELOOP` for links that lead in a circle).
pub fn read_beneath(root: BorrowedFd<'_>, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // The place itself, not opened: that comes after a look at what it is.
    let place = match beneath::open_inside(root, path, OFlags::PATH, Mode::empty()) {
        Ok(place) => place,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = FileType::from_raw_mode(fstat(&place)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(invalid(format!("{} is not a regular file but a {kind:?}", path.display())));
    }
    let mut bytes = Vec::new();
    reopen(&place)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
        return Ok(Some(bytes));
    }
    Err(invalid(format!("{} is longer than {limit} bytes", path.display())))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Opens for reading what is held by `place`, whatever its name leads to by now.
fn reopen(place: &OwnedFd) -> io::Result<File> {
    let held = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(open(held, flags, Mode::empty())?))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::{fd::AsFd as _, unix::fs::symlink},
    };

    use rustix::fs::{CWD, mknodat};

    use super::*;

    const LIMIT: u64 = 64;

    fn root() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let root = File::open(dir.path()).unwrap();
        (dir, root)
    }

    fn passwd(root: &File) -> io::Result<Option<Vec<u8>>> {
        read_beneath(root.as_fd(), Path::new("/etc/passwd"), LIMIT)
    }

    #[test]
    fn a_regular_file_is_read_and_a_missing_one_is_none() {
        let (dir, root) = root();
        assert_eq!(passwd(&root).unwrap(), None);
        fs::write(dir.path().join("etc/passwd"), "x").unwrap();
        assert_eq!(passwd(&root).unwrap().unwrap(), b"x");
        assert_eq!(read_beneath(root.as_fd(), Path::new("etc/passwd/x"), LIMIT).unwrap(), None);
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let (dir, root) = root();
        fs::write(dir.path().join("real"), "inside").unwrap();
        symlink("/real", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(passwd(&root).unwrap().unwrap(), b"inside");
        let outside = tempfile::NamedTempFile::new().unwrap();
        for target in [outside.path(), &Path::new("../../../../..").join(outside.path())] {
            fs::remove_file(dir.path().join("etc/passwd")).unwrap();
            symlink(target, dir.path().join("etc/passwd")).unwrap();
            assert_eq!(passwd(&root).unwrap(), None, "{target:?}");
        }
    }

    #[test]
    fn what_is_no_small_regular_file_is_refused_at_once() {
        let (dir, root) = root();
        let path = dir.path().join("etc/passwd");
        let is_refused = || passwd(&root).unwrap_err().kind();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(is_refused(), io::ErrorKind::InvalidData);
        fs::remove_file(&path).unwrap();
        symlink("passwd", &path).unwrap();
        let error = passwd(&root).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(is_refused(), io::ErrorKind::InvalidData);
        fs::remove_dir(&path).unwrap();
        // Sparse: refused for its length without being read whole.
        File::create(&path).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(is_refused(), io::ErrorKind::InvalidData);
        fs::remove_file(&path).unwrap();
        fs::write(&path, [b'x'; 64]).unwrap();
        assert!(passwd(&root).is_ok(), "as long as the limit");
    }

    #[test]
    fn a_device_is_refused_without_being_opened() {
        let (dir, root) = root();
        let path = dir.path().join("etc/passwd");
        let zero = rustix::fs::makedev(1, 5);
        if mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, zero).is_err() {
            return eprintln!("skipped: needs the capability to make device nodes");
        }
        assert_eq!(passwd(&root).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
