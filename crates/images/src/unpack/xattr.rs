//! Which extended attributes of a layer are kept. By a list of what may be, not of what may not:
//! overlay's own attributes in a layer would redirect lookups out of it (C-39), and labels of a
//! security module are the host's to give.

use std::{io, os::fd::AsFd};

use rustix::{fs::XattrFlags, io::Errno};

use super::{fault::Fault, path::LONGEST_NAME};

/// Bytes of names and values that one file may have.
pub const MOST: usize = 64 * 1024;

const CAPABILITY: &[u8] = b"security.capability";

/// What becomes of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is set, or the layer is refused: without it a program would not do what it should.
    Needed,
    /// It is set where the filesystem can.
    Wanted,
    Dropped,
}

fn fate(name: &[u8]) -> Fate {
    if name == CAPABILITY {
        Fate::Needed
    } else if name.starts_with(b"user.overlay.") {
        Fate::Dropped
    } else if name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") {
        Fate::Wanted
    } else {
        Fate::Dropped
    }
}

/// Sets those of `xattrs` that may be, on a file or directory opened for reading or writing. After
/// its owner was set: changing that takes `security.capability` away.
pub fn set(file: impl AsFd, path: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Fault> {
    let size: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST {
        return Err(Fault::TooMuch { what: "bytes of extended attributes", limit: MOST as u64 });
    }
    for (name, value) in xattrs {
        let fate = fate(name);
        if fate == Fate::Dropped {
            continue;
        }
        if name.len() > LONGEST_NAME || name.contains(&0) {
            return Err(Fault::archive(path, "the name of an extended attribute is malformed"));
        }
        match rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) if fate == Fate::Wanted => {}
            Err(Errno::INVAL) => {
                return Err(Fault::archive(path, "its file capabilities are malformed"));
            }
            Err(errno) => return Err(Fault::at("setting attributes of", path, errno)),
        }
    }
    Ok(())
}

/// The attributes of a file of a layer that belong into an archive of it.
pub fn get(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let file = file.as_fd();
    let mut names = vec![0; rustix::fs::flistxattr_query(file)?];
    let length = rustix::fs::flistxattr(file, &mut names[..])?;
    let mut xattrs = Vec::new();
    for name in names[..length].split(|b| *b == 0) {
        if name.is_empty() || fate(name) == Fate::Dropped {
            continue;
        }
        let mut value = vec![0; MOST];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..])?;
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_harmless_is_kept() {
        assert_eq!(fate(b"security.capability"), Fate::Needed);
        assert_eq!(fate(b"user.mime_type"), Fate::Wanted);
        for name in [
            b"trusted.overlay.redirect".as_slice(),
            b"trusted.overlay.opaque",
            b"user.overlay.metacopy",
            b"user.overlay.opaque",
            b"trusted.anything",
            b"security.selinux",
            b"security.ima",
            b"system.nfs4_acl",
            b"",
        ] {
            assert_eq!(fate(name), Fate::Dropped, "{}", name.escape_ascii());
        }
    }
}
