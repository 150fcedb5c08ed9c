//! A container's root filesystem: an image's layers and a directory of its own, as one overlay.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use names::{ContainerId, Digest};
use rustix::{
    fs::{Gid, Mode, Uid},
    io::Errno,
};
use sys::{
    beneath,
    mount::{self, Overlay, Upper},
};

use crate::{
    error::{At, Error},
    store::{FILES, Layer, Store},
};

/// Where what a container writes is, beneath its place.
pub(crate) const UPPER: &str = "upper";
const WORK: &str = "work";
/// An empty directory, for an overlay that would otherwise have too few.
const NOTHING: &str = "nothing";

/// Whether a container may write to its root filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Writable,
    ReadOnly,
}

/// Mounts an image for a container at `target`, a directory. Blocks.
pub(crate) fn mount(
    store: &Store,
    image: &Digest,
    container: &ContainerId,
    target: &Path,
    access: Access,
) -> Result<(), Error> {
    let (place, image) = store.reserve(container, image, &target.to_string_lossy())?;
    mount_at(store, &image.stacked(), &place, target, access).inspect_err(|_| {
        // The first error is the one to tell; what is left is unmounted by the next undo.
        let _ = unmount(store, container, target);
    })
}

/// Unmounts what [`mount`] mounted and removes what was written. Idempotent, and content with what
/// was never mounted, or only half. Blocks.
pub(crate) fn unmount(store: &Store, container: &ContainerId, target: &Path) -> Result<(), Error> {
    mount::unmount(target).at("unmounting", target)?;
    store.release(container)?;
    // Its image may have been removed in the meantime.
    store.sweep()
}

fn mount_at(
    store: &Store,
    diffs: &[Digest],
    place: &OwnedFd,
    target: &Path,
    access: Access,
) -> Result<(), Error> {
    let layers = stack(store, diffs)?;
    let mut lower = Vec::with_capacity(layers.len() + 1);
    for layer in &layers {
        let name = format!("{}/{FILES}", layer.diff.hex());
        let dir = beneath::open_dir(&store.dirs.layers, name.as_bytes());
        lower.push(dir.at("opening", &store.root().join("layers").join(&name))?);
    }
    let fewest = if access == Access::ReadOnly { 2 } else { 1 };
    let make = |name: &str| make(place, name).at("making a directory for", target);
    for n in lower.len()..fewest {
        lower.push(make(&format!("{NOTHING}{n}"))?);
    }
    let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
    let writable = match access {
        Access::ReadOnly => None,
        Access::Writable => Some((make(UPPER)?, make(WORK)?)),
    };
    if let Some((upper, _)) = &writable {
        inherit(&layers, &lower, upper).at("making the root of", target)?;
    }
    // Nothing of a container outlives the machine, so nothing of it need be synced.
    let upper = writable.as_ref().map(|(upper, work)| Upper {
        upper: upper.as_fd(),
        work: work.as_fd(),
        volatile: true,
    });
    Overlay { lower: &lower, upper }.mount(target).at("mounting an overlay at", target)
}

/// The layers of an overlay, from the top down. The kernel takes each only once; of one that is
/// there twice the upper one hides all of the lower. Nothing is needed beneath one that hides all.
pub(crate) fn stack(store: &Store, diffs: &[Digest]) -> Result<Vec<Arc<Layer>>, Error> {
    let mut seen = HashSet::new();
    let mut layers = Vec::new();
    for diff in diffs.iter().rev().filter(|diff| seen.insert(*diff)) {
        let layer = store.layer(diff);
        let layer = layer.ok_or_else(|| Error::NoSuchImage(format!("with layer {diff}")))?;
        let last = layer.hides_all;
        layers.push(layer);
        if last {
            break;
        }
    }
    Ok(layers)
}

/// Gives the root of what is written the attributes of the uppermost layer that has any: they are
/// what the overlay shows.
fn inherit(
    layers: &[Arc<Layer>],
    lower: &[std::os::fd::BorrowedFd<'_>],
    upper: &OwnedFd,
) -> std::io::Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    let Some(at) = layers.iter().position(|layer| layer.has_root) else {
        return Ok(rustix::fs::fchmod(upper, mode)?);
    };
    let stat = rustix::fs::fstat(lower[at])?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(upper, Some(uid), Some(gid))?;
    Ok(rustix::fs::fchmod(upper, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

fn make(place: &OwnedFd, name: &str) -> std::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(place, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    beneath::open_listable(place, name.as_bytes())
}
