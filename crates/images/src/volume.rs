//! Image volumes: an image, or a folder of one, that a container sees beside its own root filesystem.
//! What an image names is looked up in the image alone: a link in it leads where it would lead in a
//! container of that image, and never to the host.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use names::Digest;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use sys::{
    beneath,
    mount::{self, Attributes, Overlay},
};

use crate::{
    ImageId,
    error::{At, Error},
    rootfs::{self, Access},
    store::Store,
};

/// An image that a container is to see, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub image: ImageId,
    /// The folder in it that is seen in place of its root; empty for the root.
    pub sub_path: PathBuf,
    /// Where it is mounted: an existing directory.
    pub target: PathBuf,
}

/// Mounts an image's layers for a volume, in the place of its container. Blocks.
pub(crate) fn mount(
    store: &Store,
    layers: &[Digest],
    place: &OwnedFd,
    volume: &Volume,
    mapped: Option<&OwnedFd>,
) -> Result<(), Error> {
    let target = &volume.target;
    rootfs::mount_at(store, layers, place, target, Access::ReadOnly, mapped)?;
    if volume.sub_path.as_os_str().is_empty() {
        return Ok(());
    }
    // Kernels before 6.15 bind nothing of a mount that is attached nowhere, so that the whole image
    // is there for a moment.
    let root = beneath::open_root(target).at("opening", target)?;
    let folder = folder(&root, &volume.image, &volume.sub_path)?;
    let swap = || {
        let bound = mount::bind(&folder, false)?;
        bound.set(Attributes { read_only: true, ..Attributes::default() }, false)?;
        mount::unmount(target)?;
        bound.attach(target)
    };
    swap().at("mounting a folder of an image at", target)
}

/// Whether an image has the folder, found out without leaving a trace. Blocks.
///
/// # Errors
/// [`Error::NoSuchImage`], [`Error::NoFolder`]. On kernels that do not let it be found out so, none:
/// then [`mount`] tells.
pub(crate) fn check(store: &Arc<Store>, image: &Digest, sub_path: &Path) -> Result<(), Error> {
    let found = store.find(image.as_str());
    let found = found.ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
    if sub_path.as_os_str().is_empty() {
        return Ok(());
    }
    let scratch = store.scratch()?;
    let layers = rootfs::stack(store, &found.stacked())?;
    let mut lower = rootfs::open(store, &layers)?;
    for n in lower.len()..2 {
        let nothing = rootfs::make(&scratch.dir, &format!("nothing{n}"));
        lower.push(nothing.at("making a directory beneath", store.root())?);
    }
    let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
    match (Overlay { lower: &lower, upper: None }).make() {
        Ok(root) => folder(&root, image, sub_path).map(drop),
        Err(_) => Ok(()),
    }
}

fn folder(root: impl AsFd, image: &Digest, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    beneath::open_inside(root, path, flags, Mode::empty()).map_err(|error| {
        let why = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => "no such folder",
            Some(Errno::NOTDIR) => "a file, where only folders can be mounted",
            Some(Errno::LOOP) => "links that lead in a circle",
            Some(Errno::NAMETOOLONG) => "no name that is so long",
            _ => return Error::io("looking in an image for", path, error),
        };
        Error::NoFolder { image: image.clone(), path: path.to_owned(), why }
    })
}
