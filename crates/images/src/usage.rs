//! How much of the disk images and containers take.

use std::{collections::HashSet, io, ops::AddAssign, os::fd::AsFd};

use names::ContainerId;
use rustix::io::Errno;
use sys::beneath::{self, Order, Visit};

use crate::{
    error::{At, Error},
    rootfs::UPPER,
    store::Store,
};

/// Space on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.bytes += more.bytes;
        self.inodes += more.inodes;
    }
}

/// What all layers take, as it was counted when they were unpacked.
pub(crate) fn layers(store: &Store) -> Usage {
    let mut usage = Usage::default();
    for layer in store.index().layers.values() {
        usage += Usage { bytes: layer.bytes, inodes: layer.names };
    }
    usage
}

/// What a container has written, counted now; nothing if there is no such container. Blocks.
pub(crate) fn container(store: &Store, id: &ContainerId) -> Result<Usage, Error> {
    let path = store.root().join("containers").join(id.as_str());
    let Some(place) = store.place(id)? else { return Ok(Usage::default()) };
    match beneath::open_listable(&place, UPPER.as_bytes()) {
        Ok(upper) => tree(&upper).at("measuring", &path),
        // It is read-only, or on its way out.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(Usage::default()),
        Err(error) => Err(Error::io("measuring", &path, error)),
    }
}

/// Counts a tree, hard links once. A tree that changes meanwhile is counted as it was met; one that
/// is rearranged so that the way back is lost, as far as that.
fn tree(root: impl AsFd) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let walked = beneath::walk(root, Order::Found, &mut |visit| {
        let Visit::Entry { dir, name, .. } = visit else { return Ok(()) };
        if let Some(stat) = beneath::stat(dir, name)?
            && (stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)))
        {
            let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            usage += Usage { bytes, inodes: 1 };
        }
        Ok(())
    });
    match walked {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::STALE) => Err(error),
        _ => Ok(usage),
    }
}
