//! A layer's archive, unpacked beneath a directory. Whatever the archive says, nothing outside of
//! the directory is touched, and nothing grows beyond the limits; what is unclear is refused. That
//! it is the right archive is not checked here, nor where its bytes come from.

mod fault;
mod number;
mod path;
mod pax;
mod tape;
mod tree;
pub(crate) mod whiteout;
pub(crate) mod xattr;

use std::{io::Read, os::fd::OwnedFd};

pub use fault::Fault;
pub use path::Within;
pub use tape::{Kind, Member, Tape};
use tree::Tree;
use whiteout::Mark;

/// What one layer may have at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories, links.
    pub names: u64,
    /// Bytes of all files together, holes included, and of the archive.
    pub bytes: u64,
    /// How many times its compressed size an archive may be, beyond [`Limits::free`].
    pub ratio: u64,
    /// Bytes of archive for which no ratio is asked: a small layer may be all zeros.
    pub free: u64,
    /// Bytes of disk that unpacking leaves to others.
    pub reserve: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { names: 4 << 20, bytes: 128 << 30, ratio: 200, free: 1 << 30, reserve: 64 << 20 }
    }
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes on the disk, roughly.
    pub bytes: u64,
    pub names: u64,
    /// Whether the archive says what its root is like.
    pub has_root: bool,
    /// Whether all layers beneath are hidden.
    pub hides_all: bool,
    /// Directories that the archive does not have but needs; see [`tree::Tree::finish`].
    pub implied: Vec<Within>,
}

/// Unpacks the archive that `reader` gives into the empty directory `root`, and reads it to its end.
pub fn unpack(reader: impl Read, root: &OwnedFd, limits: &Limits) -> Result<Unpacked, Fault> {
    let mut unpacked = Unpacked::default();
    let mut tape = Tape::new(reader);
    let mut tree = Tree::new(root, limits);
    while let Some(member) = tape.member()? {
        let wrong = |why: &'static str| Fault::archive(&member.path, why);
        let path = Within::parse(&member.path).map_err(wrong)?;
        match meaning(&path).map_err(wrong)? {
            Mark::Meta => {}
            Mark::Gone(name) => tree.whiteout(&path.sibling(name))?,
            Mark::Opaque if path.parent().is_root() => unpacked.hides_all = true,
            Mark::Opaque => tree.opaque(&path.parent())?,
            Mark::None => {
                unpacked.has_root |= path.is_root();
                tree.put(&path, &member, &mut tape)?;
            }
        }
    }
    (unpacked.bytes, unpacked.names) = (tree.disk, tree.names);
    unpacked.implied = tree.finish()?;
    Ok(unpacked)
}

/// What a path stands for, by all its names: beneath bookkeeping all is bookkeeping, and beneath a
/// whiteout there can be nothing.
fn meaning(path: &Within) -> Result<Mark<'_>, &'static str> {
    for name in path.parent().names() {
        match whiteout::mark(name)? {
            Mark::None => {}
            Mark::Meta => return Ok(Mark::Meta),
            Mark::Gone(_) | Mark::Opaque => return Err("it is in something that is gone"),
        }
    }
    whiteout::mark(path.name())
}

#[cfg(test)]
mod tests;
