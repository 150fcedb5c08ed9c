//! What is mounted for a container beside its root filesystem, before its runtime mounts it inside: the
//! images that it sees, found and looked into before anything is made (how an image becomes a mount is
//! `images`' matter); and folders of the host whose files are to be shown as its user namespace's.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use images::Images;
use names::Class;

use crate::{
    Error,
    container::{ContainerRecord, Volume},
    error::Context,
    owners,
    plan::{ContainerPlan, ImageMount, Mount, Propagation, UserNamespace},
};

/// What CRI calls it, for clients to look for.
pub(crate) const FAILED: &str = "ImageVolumeMountFailed";

/// Where the source of the plan's nth mount is mounted, for the container's own mount of it, if it is an
/// image or a mapped folder.
pub(crate) fn target(bundle: &Path, mount: usize) -> PathBuf {
    bundle.join("volumes").join(mount.to_string())
}

/// The images that a container is to see. One that is not there is an error.
pub(crate) fn find(images: &Images, plan: &ContainerPlan) -> Result<Vec<Volume>, Error> {
    let asked = asked(plan).map(|(mount, asked)| match images.find(&asked.image) {
        Some(image) => Ok(Volume { mount, image: image.id.clone() }),
        None => Err(missing(mount, asked)),
    });
    asked.collect()
}

/// Refuses a folder that an image does not have, before anything is made.
pub(crate) async fn check(
    images: &Images,
    plan: &ContainerPlan,
    volumes: &[Volume],
) -> Result<(), Error> {
    for ((mount, asked), volume) in asked(plan).zip(volumes) {
        match images.check_volume(&volume.image, &asked.sub_path).await {
            Ok(()) => {}
            Err(images::Error::NoSuchImage(_)) => return Err(missing(mount, asked)),
            Err(error) => return Err(failed(mount, error)),
        }
    }
    Ok(())
}

/// What is to be mounted, and where.
pub(crate) fn of(container: &ContainerRecord) -> Vec<images::Volume> {
    let asked = asked(&container.plan).zip(&container.volumes);
    let volume = |((mount, asked), volume): ((usize, &ImageMount), &Volume)| images::Volume {
        image: volume.image.clone(),
        sub_path: asked.sub_path.clone(),
        target: target(&container.bundle, mount),
    };
    asked.map(volume).collect()
}

/// That a root filesystem could not be mounted, or that one of these could not. Before Linux 6.5 that there
/// is no such folder is found out only now.
pub(crate) fn told(plan: &ContainerPlan, error: images::Error) -> Error {
    match error {
        images::Error::Volume { at, source } => match asked(plan).nth(at) {
            Some((mount, _)) => failed(mount, *source),
            None => Error::from(*source).at(FAILED),
        },
        error => error.into(),
    }
}

/// What became of the plan's nth mount.
fn failed(mount: usize, error: images::Error) -> Error {
    match error {
        images::Error::NoFolder { .. } => {
            let field = format!("config.mounts[{mount}].image_sub_path");
            Error::rejected(field, error.to_string()).at(FAILED)
        }
        error => Error::from(error).at(FAILED),
    }
}

/// Mounts the folders and files of the host that are to be shown with other owners. The runtime does not
/// do it: not every one can, and here there is one way for all.
///
/// # Errors
/// Of class FailedPrecondition for a filesystem that cannot be mapped.
pub(crate) fn map_folders(container: &ContainerRecord) -> Result<(), Error> {
    for (n, mount, owners) in mapped(&container.plan) {
        let target = target(&container.bundle, n);
        let source = crate::spec::on_host(n, &mount.host_path)?;
        make_place(&source, &target).on("making the mount point", &target)?;
        map_folder(&source, mount.propagation, owners, &target).map_err(|error| {
            let why = format!(
                "config.mounts[{n}]: {} cannot be shown with other owners: {error}",
                source.display()
            );
            Error::precondition(why)
        })?;
    }
    Ok(())
}

pub(crate) fn unmap_folders(container: &ContainerRecord) -> Result<(), Error> {
    mapped(&container.plan).try_for_each(|(n, ..)| {
        let target = target(&container.bundle, n);
        sys::mount::unmount(&target).map(drop).on("unmounting", &target)
    })
}

fn mapped(plan: &ContainerPlan) -> impl Iterator<Item = (usize, &Mount, &UserNamespace)> {
    let mounts = plan.mounts.iter().enumerate();
    let mounts = mounts.filter(|(_, mount)| mount.image.is_none());
    mounts.filter_map(|(n, mount)| Some((n, mount, mount.owners.as_ref()?)))
}

fn make_place(source: &Path, target: &Path) -> io::Result<()> {
    if source.is_dir() {
        return fs::create_dir_all(target);
    }
    target.parent().map_or(Ok(()), fs::create_dir_all)?;
    match fs::File::create_new(target) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn map_folder(
    source: &Path,
    propagation: Propagation,
    owners: &UserNamespace,
    target: &Path,
) -> io::Result<()> {
    let tree = sys::mount::bind(sys::mount::handle(source)?, true)?;
    tree.map_owners(sys::userns::anonymous(&owners::maps(owners))?.as_fd())?;
    // Never of the host's own group: what is unmounted below it here would be unmounted there.
    let propagation = match propagation {
        Propagation::Private => sys::mount::Propagation::Private,
        _ => sys::mount::Propagation::Slave,
    };
    tree.propagate(propagation, true)?;
    tree.attach(target)
}

fn asked(plan: &ContainerPlan) -> impl Iterator<Item = (usize, &ImageMount)> {
    let mounts = plan.mounts.iter().enumerate();
    mounts.filter_map(|(n, mount)| Some((n, mount.image.as_ref()?)))
}

fn missing(mount: usize, asked: &ImageMount) -> Error {
    let why =
        format!("config.mounts[{mount}].image.image: no image {}: pull it first", asked.image);
    Error::Refused { class: Class::NotFound, why }.at(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_found_missing_late_is_told_as_one_that_was_found_missing_early() {
        let image: names::Digest = format!("sha256:{}", "0".repeat(64)).parse().expect("a digest");
        let error = || images::Error::NoFolder {
            image: image.clone(),
            path: "none".into(),
            why: "no such folder",
        };
        let told = failed(2, error()).at("the root filesystem of the container");
        assert_eq!(told.class(), Class::InvalidArgument);
        let chain = told.chain();
        let start = "ImageVolumeMountFailed: config.mounts[2].image_sub_path: the image sha256:00";
        assert!(chain.starts_with(start) && chain.ends_with("no such folder"), "{chain}");
    }
}
