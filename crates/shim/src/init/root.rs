//! The root of a container: built of what the preparer holds, entered, and closed to what is not for
//! the container to see or to change.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::{
    fs::{FileType, Mode, OFlags},
    mount::{MoveMountFlags, UnmountFlags, move_mount, unmount},
    process::{chdir, chroot, fchdir, pivot_root},
};
use sys::{
    beneath::{self, Place},
    cgroup::Cgroup,
    mount::{Attributes, Detached, Propagation, Tmpfs, bind, make_slave, set_attributes},
};

use super::{
    Wanted,
    devices::{self, Devices},
    mounts::{Cgroups, Prepared},
    namespaces::Namespaces,
};
use crate::program::Failure;

/// Everything that a root is built of. The init uses it up.
pub struct Tree {
    /// Where the root is on the host, and in the container's mounts until it is entered.
    path: PathBuf,
    root: Option<Detached>,
    mounts: Vec<Prepared>,
    devices: Option<Devices>,
}

/// A root that is mounted.
pub struct Root {
    /// Its directory.
    pub dir: OwnedFd,
}

impl Tree {
    /// Takes hold of all that is the host's.
    pub fn prepare(
        spec: &Spec,
        wanted: &Wanted<'_>,
        own: Option<&Cgroup>,
        namespaces: &Namespaces,
    ) -> Result<Self, Failure> {
        let bundle = &wanted.bundle.dir;
        let root = spec.root().as_ref();
        let none = || Failure::of_runtime("the config has no root".to_owned());
        let path = bundle.join(root.ok_or_else(none)?.path());
        let hold = || {
            let root = bind(beneath::open_root(&path)?, true)?;
            root.propagate(Propagation::Private, true)?;
            io::Result::Ok(root)
        };
        let root = hold().map_err(Failure::on_the_way("taking hold of the root filesystem"))?;
        let namespace = namespaces.has_new(LinuxNamespaceType::Cgroup);
        let cgroups = Cgroups { v2: wanted.layout.is_v2(), own, namespace };
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let hosts_dev = mounts.iter().any(|mount| {
            mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("bind")
        });
        let mounts = mounts.iter().map(|mount| Prepared::prepare(mount, bundle, &cgroups));
        let mounts = mounts.collect::<Result<_, _>>()?;
        // The host's own has all in it, and none of it is ours to make.
        let devices = (!hosts_dev).then(|| Devices::prepare(spec, namespaces.has_user()));
        Ok(Self { path, root: Some(root), mounts, devices: devices.transpose()? })
    }

    /// Mounts the root where it is on the host, in mounts of our own, of which the host sees nothing
    /// from here on. The way there may be one that only the host's root can go.
    pub fn hold(&mut self) -> Result<Root, Failure> {
        make_slave(Path::new("/"))
            .map_err(Failure::on_the_way("parting from the host's mounts"))?;
        let root = self.root.take();
        let hold = || {
            root.map_or(Ok(()), |root| root.attach(&self.path))?;
            beneath::open_root(&self.path)
        };
        let dir = hold().map_err(Failure::on_the_way("mounting the root filesystem"))?;
        Ok(Root { dir })
    }

    /// Mounts everything in its place, and makes the devices and the working directory.
    pub fn build(&mut self, root: &Root, cwd: &Path) -> Result<(), Failure> {
        for mount in std::mem::take(&mut self.mounts) {
            mount.attach(&root.dir)?;
        }
        if let Some(devices) = self.devices.take() {
            devices.make(&root.dir)?;
        }
        // An image may name one that it does not have. What cannot be made will be missed later.
        let _ = beneath::place(&root.dir, cwd, Place::Directory);
        Ok(())
    }
}

impl Root {
    /// Makes it the root of this process, and lets go of the host's.
    pub fn enter(&self, no_pivot: bool) -> Result<(), Failure> {
        let enter = || if no_pivot { self.cover() } else { self.pivot() };
        enter().map_err(Failure::on_the_way("entering the root filesystem"))
    }

    fn pivot(&self) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let hosts = rustix::fs::open("/", flags, Mode::empty())?;
        fchdir(&self.dir)?;
        pivot_root(".", ".")?;
        // The host's lies upon ours now, and is what we stand in.
        fchdir(&hosts)?;
        unmount(".", UnmountFlags::DETACH)?;
        Ok(chdir("/")?)
    }

    /// For a host whose root is the kernel's first, which nothing can take the place of.
    fn cover(&self) -> io::Result<()> {
        fchdir(&self.dir)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.dir, c"", rustix::fs::CWD, c"/", flags)?;
        chroot(".")?;
        Ok(chdir("/")?)
    }

    /// Closes what the config wants to be neither seen nor changed.
    pub fn close(&self, spec: &Spec) -> Result<(), Failure> {
        let linux = spec.linux().clone().unwrap_or_default();
        self.each(linux.readonly_paths(), |found| {
            let view = bind(&found, true)?;
            view.set(Attributes { read_only: true, ..Attributes::default() }, true)?;
            view.attach_to(found)
        })?;
        self.each(linux.masked_paths(), |found| self.mask(found))?;
        let read_only = spec.root().as_ref().and_then(|root| root.readonly()) == Some(true);
        if !read_only {
            return Ok(());
        }
        let attributes = Attributes { read_only, ..Attributes::default() };
        set_attributes(&self.dir, attributes, false)
            .map_err(Failure::on_the_way("making the root filesystem read-only"))
    }

    /// Does it to all of these that there are.
    fn each(
        &self,
        paths: &Option<Vec<String>>,
        act: impl Fn(OwnedFd) -> io::Result<()>,
    ) -> Result<(), Failure> {
        for path in paths.iter().flatten() {
            let failed = |e| Failure::of_runtime(format!("closing {path}: {e}"));
            let found = beneath::open_inside(&self.dir, path, OFlags::PATH, Mode::empty());
            match found {
                Err(e) if is_absent(&e) => {}
                found => found.and_then(&act).map_err(failed)?,
            }
        }
        Ok(())
    }

    fn mask(&self, found: OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(&found)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return bind(devices::null(&self.dir)?, false)?.attach_to(found);
        }
        let attributes = Attributes { read_only: true, ..Attributes::default() };
        Tmpfs { size: None, inodes: None, mode: 0o755, attributes }.make()?.attach_to(found)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
