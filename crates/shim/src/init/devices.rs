//! What is in a container's `/dev`: the devices that every container has, those of its config, and the
//! links that programs expect.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev},
    io::Errno,
};
use sys::{
    beneath::{self, Place},
    mount::{Detached, bind},
};

use crate::program::Failure;

/// Name, major and minor number of the devices that OCI wants in every container.
const STANDARD: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The devices of a container, ready to be put in their places.
pub struct Devices(Vec<Device>);

struct Device {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: Mode,
    owner: (u32, u32),
    /// The host's node, where the container's root may make none.
    tree: Option<Detached>,
}

impl Devices {
    /// With `bound`, takes hold of the host's nodes, for the root of a user namespace may make none.
    pub fn prepare(spec: &Spec, bound: bool) -> Result<Self, Failure> {
        let asked = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
        let asked = asked.into_iter().flatten().map(Device::asked);
        let mut all: Vec<Device> = STANDARD.iter().map(Device::standard).chain(asked).collect();
        for device in all.iter_mut().filter(|_| bound) {
            let failed = |why| Failure::of_runtime(format!("the device {:?}: {why}", device.path));
            device.tree = device.hosts().map_err(failed)?;
        }
        Ok(Self(all))
    }

    /// Makes them, and the links.
    pub fn make(self, root: &OwnedFd) -> Result<(), Failure> {
        for device in self.0 {
            let path = device.path.clone();
            let failed =
                |e: std::io::Error| Failure::of_runtime(format!("making the device {path:?}: {e}"));
            device.make(root).map_err(failed)?;
        }
        let making = "making the links in /dev";
        let dev = beneath::place(root, Path::new("/dev"), Place::Directory);
        let dev = dev.map_err(Failure::on_the_way(making))?;
        LINKS.iter().try_for_each(|(name, target)| match symlink(&dev, name, target) {
            // What the image or a mount has there is what its maker wants.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(Failure::on_the_way(making)(e)),
        })
    }
}

fn symlink(dev: &OwnedFd, name: &str, target: &str) -> Result<(), Errno> {
    rustix::fs::symlinkat(target, dev, name)
}

impl Device {
    fn standard((name, major, minor): &(&str, u32, u32)) -> Self {
        Self {
            path: Path::new("/dev").join(name),
            kind: FileType::CharacterDevice,
            number: makedev(*major, *minor),
            mode: Mode::from_raw_mode(0o666),
            owner: (0, 0),
            tree: None,
        }
    }

    fn asked(device: &LinuxDevice) -> Self {
        let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        Self {
            path: device.path().clone(),
            kind,
            number: makedev(number(device.major()), number(device.minor())),
            mode: Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777),
            owner: (device.uid().unwrap_or_default(), device.gid().unwrap_or_default()),
            tree: None,
        }
    }

    fn make(self, root: &OwnedFd) -> std::io::Result<()> {
        if let Some(tree) = self.tree {
            return tree.attach_to(beneath::place(root, &self.path, Place::File)?);
        }
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(Errno::INVAL.into());
        };
        let dir = beneath::place(root, dir, Place::Directory)?;
        let number = if self.kind == FileType::Fifo { 0 } else { self.number };
        match rustix::fs::mknodat(&dir, name, self.kind, self.mode, number) {
            // One that a mount has brought, or that is in the config twice.
            Err(Errno::EXIST) => return Ok(()),
            made => made?,
        }
        let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(&dir, name, Some(uid), Some(gid), flags)?)
    }

    /// The host's node of that number, by the same path or by that which udev has for every number.
    /// A FIFO can be made by anybody.
    fn hosts(&self) -> Result<Option<Detached>, String> {
        let folder = match self.kind {
            FileType::Fifo => return Ok(None),
            FileType::BlockDevice => "block",
            _ => "char",
        };
        let (major, minor) = (rustix::fs::major(self.number), rustix::fs::minor(self.number));
        let by_number = PathBuf::from(format!("/dev/{folder}/{major}:{minor}"));
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        for path in [&self.path, &by_number] {
            let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else { continue };
            if self.is(&fd) {
                return bind(&fd, false).map(Some).map_err(|e| e.to_string());
            }
        }
        Err(format!("the host has no node with the numbers {major}:{minor}"))
    }

    fn is(&self, fd: &OwnedFd) -> bool {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == self.kind && stat.st_rdev == self.number
        })
    }
}

/// The container's `/dev/null`, to cover files with. It is looked at: the image or a mount may have put
/// something else there (CVE-2025-31133).
pub fn null(root: &OwnedFd) -> std::io::Result<OwnedFd> {
    let fd = beneath::open(root, "dev/null", OFlags::PATH, Mode::empty())?;
    match Device::standard(&STANDARD[0]).is(&fd) {
        true => Ok(fd),
        false => Err(std::io::Error::other("/dev/null is something else")),
    }
}

/// Our terminal is the container's console too.
pub fn bind_console(root: &OwnedFd) -> Result<(), Failure> {
    let bind_it = || {
        let place = beneath::place(root, Path::new("/dev/console"), Place::File)?;
        bind(rustix::stdio::stdin().as_fd(), false)?.attach_to(place)
    };
    bind_it().map_err(Failure::on_the_way("mounting the terminal at /dev/console"))
}
