//! A container's root filesystem: an image's layers and a directory of its own, as one overlay.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
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
    userns::{self, Maps},
};

use crate::{
    ImageId,
    error::{At, Error},
    store::{FILES, Layer, Store},
    volume::{self, Volume},
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

/// The root filesystem that a container is to have.
#[derive(Clone, Debug)]
pub struct Rootfs {
    pub image: ImageId,
    /// Where it is mounted: an existing directory.
    pub target: PathBuf,
    pub access: Access,
    /// Other images that it sees.
    pub volumes: Vec<Volume>,
    /// Those of its user namespace, by which files are shown as owned by its users (Linux 5.19);
    /// empty for the host's.
    pub owners: Maps,
}

/// Mounts an image for a container at its target, and its volumes at theirs. Blocks.
pub(crate) fn mount(store: &Store, container: &ContainerId, of: &Rootfs) -> Result<(), Error> {
    let Rootfs { image, target, access, volumes, owners } = of;
    let (place, held) = store.reserve(container, image, target, volumes)?;
    let mount_all = || {
        let mapped = user_namespace(owners).at("making a user namespace to map", target)?;
        mount_at(store, &held.layers, &place, target, *access, mapped.as_ref())?;
        let mut each = volumes.iter().zip(&held.volumes).enumerate();
        each.try_for_each(|(at, (volume, seen))| {
            volume::mount(store, &seen.layers, &place, volume, mapped.as_ref())
                .map_err(|source| Error::Volume { at, source: Box::new(source) })
        })
    };
    mount_all().inspect_err(|_| {
        // The first error is the one to tell; what is left is unmounted by the next undo.
        let _ = unmount(store, container, target);
    })
}

fn user_namespace(owners: &Maps) -> std::io::Result<Option<OwnedFd>> {
    (!owners.is_empty()).then(|| userns::anonymous(owners)).transpose()
}

/// Unmounts what [`mount`] mounted and removes what was written. Idempotent, and content with what
/// was never mounted, or only half. Blocks.
pub(crate) fn unmount(store: &Store, container: &ContainerId, target: &Path) -> Result<(), Error> {
    for volume in store.volumes_of(container) {
        mount::unmount(&volume).at("unmounting", &volume)?;
    }
    mount::unmount(target).at("unmounting", target)?;
    store.release(container)?;
    // Its image may have been removed in the meantime.
    store.sweep()
}

/// Mounts layers, in the place of a container, at `target`. Without anything to write to it is
/// read-only for everybody, whatever is asked of it later.
pub(crate) fn mount_at(
    store: &Store,
    diffs: &[Digest],
    place: &OwnedFd,
    target: &Path,
    access: Access,
    mapped: Option<&OwnedFd>,
) -> Result<(), Error> {
    let layers = stack(store, diffs)?;
    let make = |name: &str| make(place, name).at("making a directory for", target);
    let fewest = if access == Access::ReadOnly { 2 } else { 1 };
    let mut lower = open(store, &layers)?;
    for n in lower.len()..fewest {
        lower.push(make(&format!("{NOTHING}{n}"))?);
    }
    let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
    let writable = match access {
        Access::ReadOnly => None,
        Access::Writable => Some((make(UPPER)?, make(WORK)?)),
    };
    if let Some((upper, _)) = &writable {
        inherit(&layers, &lower, upper, mapped).at("making the root of", target)?;
    }
    // Nothing of a container outlives the machine, so nothing of it need be synced.
    let upper = writable.as_ref().map(|(upper, work)| Upper {
        upper: upper.as_fd(),
        work: work.as_fd(),
        volatile: true,
    });
    let overlay = Overlay { lower: &lower, upper };
    let mounted = match mapped {
        Some(by) => sys::mapped::mount(&overlay, by.as_fd(), target),
        None => overlay.mount(target),
    };
    mounted.at("mounting an overlay at", target)
}

/// The files of layers.
pub(crate) fn open(store: &Store, layers: &[Arc<Layer>]) -> Result<Vec<OwnedFd>, Error> {
    let each = layers.iter().map(|layer| {
        let name = format!("{}/{FILES}", layer.diff.hex());
        let dir = beneath::open_dir(&store.dirs.layers, name.as_bytes());
        dir.at("opening", &store.root().join("layers").join(&name))
    });
    each.collect()
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
    mapped: Option<&OwnedFd>,
) -> std::io::Result<()> {
    let root = layers.iter().position(|layer| layer.has_root).map(|at| lower[at]);
    let Some(from) = root.or_else(|| mapped.and_then(|_| lower.first().copied())) else {
        return Ok(rustix::fs::fchmod(upper, Mode::from_raw_mode(0o755))?);
    };
    // Who owns it in the namespace is what a mount says that is mapped by it.
    let view = mapped.map(|by| {
        let view = mount::bind(from, false)?;
        view.map_owners(by.as_fd()).map(|()| view)
    });
    let view = view.transpose()?;
    let stat = rustix::fs::fstat(view.as_ref().map_or(from, |view| view.as_fd()))?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(upper, Some(uid), Some(gid))?;
    let mode = if root.is_some() { stat.st_mode & 0o7777 } else { 0o755 };
    Ok(rustix::fs::fchmod(upper, Mode::from_raw_mode(mode))?)
}

pub(crate) fn make(place: &OwnedFd, name: &str) -> std::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(place, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    beneath::open_listable(place, name.as_bytes())
}
