//! Mounts by the new mount API: each is made as a descriptor that nobody sees, and only attaching
//! it makes it a fact of the host; dropped before that, it is gone. What is mounted where, and why,
//! is the caller's matter.

use std::{
    fmt,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
        MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount,
        open_tree, unmount as umount2,
    },
};

/// A mount that is nowhere yet. Dropping it unmounts it.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Puts it at `target`, whose last component is not followed if it is a link.
    pub fn attach(self, target: &Path) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// Puts it upon what `target` is open on (`O_PATH` is enough).
    pub fn attach_to(self, target: impl AsFd) -> io::Result<()> {
        let both =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.0, c"", target, c"", both)?)
    }

    /// Sets attributes of this mount, and with `recursive` of all mounts beneath it.
    pub fn set(&self, attributes: Attributes, recursive: bool) -> io::Result<()> {
        set_attributes(&self.0, attributes, recursive)
    }

    /// Sets what becomes of mounts that are made beneath it, here or in its copies.
    pub fn propagate(&self, how: Propagation, recursive: bool) -> io::Result<()> {
        let propagation = match how {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
        };
        mount_setattr(self.0.as_fd(), recursive, libc::mount_attr { propagation, ..NOTHING })
    }

    /// Shows its files as owned by those whom this user namespace maps their owners to (Linux 5.12;
    /// tmpfs since 6.3, overlays never). The mount must never have been mapped or attached.
    pub fn map_owners(&self, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let userns_fd = u64::try_from(user_namespace.as_raw_fd()).unwrap_or(u64::MAX);
        let attr = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, userns_fd, ..NOTHING };
        mount_setattr(self.0.as_fd(), false, attr)
    }

    /// Lets programs be run from this mount, whatever was so where it is from.
    ///
    /// # Errors
    /// Of the kernel: `NotFound` or `Unsupported` before Linux 5.12.
    pub fn allow_programs(&self) -> io::Result<()> {
        let attr = libc::mount_attr { attr_clr: libc::MOUNT_ATTR_NOEXEC, ..NOTHING };
        mount_setattr(self.0.as_fd(), false, attr)
    }
}

impl AsFd for Detached {
    /// The root of the mount, to open what is in it before anybody else can.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a mount forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_dev: bool,
    pub no_exec: bool,
    /// `None` leaves a mount as it is, and gives a new filesystem the kernel's default.
    pub access_times: Option<AccessTimes>,
}

/// When reading a file is noted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessTimes {
    /// If it was changed since, or a day has passed.
    Relative,
    Always,
    Never,
}

/// What becomes of mounts made beneath a mount (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are seen nowhere else.
    Private,
    /// Those of its master are seen in it, and not the other way round.
    Slave,
    /// Those of each are seen in all of its group.
    Shared,
}

impl Attributes {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.no_suid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.no_dev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_exec);
        flags
            | match self.access_times {
                None | Some(AccessTimes::Relative) => MountAttrFlags::MOUNT_ATTR_RELATIME,
                Some(AccessTimes::Always) => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
                Some(AccessTimes::Never) => MountAttrFlags::MOUNT_ATTR_NOATIME,
            }
    }
}

/// Sets attributes of the mount that `mount` is open on, and with `recursive` of those beneath it.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    let attr_set = attributes.flags().bits().into();
    let attr_clr = attributes.access_times.map_or(0, |_| libc::MOUNT_ATTR__ATIME);
    let attr = libc::mount_attr { attr_set, attr_clr, ..NOTHING };
    mount_setattr(mount.as_fd(), recursive, attr)
}

/// Whether no program can be run from where `path` is.
///
/// # Errors
/// If there is nothing.
pub fn forbids_programs(path: &Path) -> io::Result<bool> {
    let mount = rustix::fs::statvfs(path)?;
    Ok(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Whether attributes of mounts can be set here, and so for all beneath one (Linux 5.12).
pub fn can_set_attributes() -> bool {
    mount_setattr(CWD, false, NOTHING).is_ok()
}

const NOTHING: libc::mount_attr =
    libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

fn mount_setattr(mount: BorrowedFd<'_>, deep: bool, attr: libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if deep { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string, `attr` lives across the call and its size is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A filesystem in memory.
#[derive(Clone, Copy, Debug)]
pub struct Tmpfs {
    /// Bytes; `None` for the kernel's default, half of the memory.
    pub size: Option<u64>,
    /// `None` for the kernel's default.
    pub inodes: Option<u64>,
    /// The mode of its root.
    pub mode: u32,
    pub attributes: Attributes,
}

impl Tmpfs {
    /// Makes it, attached nowhere.
    pub fn make(&self) -> io::Result<Detached> {
        let fs = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, c"mode", format!("{:o}", self.mode))?;
        if let Some(bytes) = self.size {
            fsconfig_set_string(&fs, c"size", bytes.to_string())?;
        }
        if let Some(inodes) = self.inodes {
            fsconfig_set_string(&fs, c"nr_inodes", inodes.to_string())?;
        }
        create(&fs, self.attributes)
    }
}

/// A new filesystem of any kind, as `mount -t` would have it.
#[derive(Clone, Copy, Debug)]
pub struct Fresh<'a> {
    pub kind: &'a str,
    pub source: Option<&'a str>,
    /// The filesystem's own: `name` or `name=value`.
    pub options: &'a [String],
    pub attributes: Attributes,
}

impl Fresh<'_> {
    /// Makes it, attached nowhere.
    ///
    /// # Errors
    /// What the kernel said, in words where it gave any.
    pub fn make(&self) -> io::Result<Detached> {
        let fs = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        let configure = || {
            if let Some(source) = self.source {
                fsconfig_set_string(&fs, c"source", source)?;
            }
            for option in self.options {
                match option.split_once('=') {
                    Some((name, value)) => fsconfig_set_string(&fs, name, value)?,
                    None => fsconfig_set_flag(&fs, option.as_str())?,
                }
            }
            create(&fs, self.attributes)
        };
        configure().map_err(|error| in_words(&fs, error))
    }
}

/// Opens whatever is at `path`, only to name it (`O_PATH`): nothing is read, and nothing waits.
pub fn handle(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A second view of what `source` is open on (`O_PATH` is enough), with `recursive` of the mounts
/// beneath it too.
pub fn bind(source: impl AsFd, recursive: bool) -> io::Result<Detached> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(Detached(open_tree(source, c"", flags)?))
}

/// Directories shown as one. Nothing of it is named by a path: all are descriptors.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// From the top down; the kernel takes 500 at most, each once.
    pub lower: &'a [BorrowedFd<'a>],
    /// What is written goes here; without it the mount is read-only and needs two of `lower`.
    pub upper: Option<Upper<'a>>,
}

/// The writable part of an overlay: two directories of one filesystem, `work` empty.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    pub upper: BorrowedFd<'a>,
    pub work: BorrowedFd<'a>,
    /// Nothing is synced, not at an unmount either; after a crash of the machine the directory is
    /// to be thrown away. Kernels before 5.10 do not know it, and go without.
    pub volatile: bool,
}

/// How an overlay's directories are told to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// As descriptors: since Linux 6.13.
    Descriptors,
    /// One by one, as `/proc/self/fd/N`: since Linux 6.5.
    Names,
    /// All on one page of options, by `mount(2)`: some 200 directories at most.
    Page,
}

impl Overlay<'_> {
    /// Mounts it at `target`.
    ///
    /// # Errors
    /// What the kernel said, in words where it gave any.
    pub fn mount(&self, target: &Path) -> io::Result<()> {
        // Only where no older way works either was it our request, not the kernel's age.
        let mut refusal = None;
        for telling in [Telling::Descriptors, Telling::Names, Telling::Page] {
            let error = match self.mount_by(telling, target) {
                Err(error) if is_unknown(&error) => error,
                other => return other,
            };
            let says_less = is_in_words(refusal.as_ref()) && !is_in_words(Some(&error));
            if !says_less {
                refusal = Some(error);
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Makes it, attached nowhere, so that what it shows can be looked at and nobody sees it. Since
    /// Linux 6.5.
    ///
    /// # Errors
    /// What the kernel said; also that it is too old for this, and not for [`Overlay::mount`].
    pub fn make(&self) -> io::Result<Detached> {
        let made = self.make_by(Telling::Descriptors);
        made.or_else(|first| self.make_by(Telling::Names).map_err(|_| first))
    }

    fn mount_by(&self, telling: Telling, target: &Path) -> io::Result<()> {
        match telling {
            Telling::Page => self.mount_by_page(target),
            telling => self.make_by(telling)?.attach(target),
        }
    }

    fn make_by(&self, telling: Telling) -> io::Result<Detached> {
        let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        self.tell(&fs, telling)
            .and_then(|()| create(&fs, Attributes::default()))
            .map_err(|error| in_words(&fs, error))
    }

    fn tell(&self, fs: &OwnedFd, telling: Telling) -> io::Result<()> {
        let set = |key: &str, fd: BorrowedFd<'_>| match telling {
            Telling::Descriptors => fsconfig_set_fd(fs, key, fd),
            _ => fsconfig_set_string(fs, key, proc_name(fd)),
        };
        for layer in self.lower {
            set("lowerdir+", *layer)?;
        }
        if let Some(upper) = self.upper {
            set("upperdir", upper.upper)?;
            set("workdir", upper.work)?;
            if upper.volatile {
                // Without it all is as right, only slower.
                let _ = fsconfig_set_flag(fs, c"volatile");
            }
        }
        Ok(())
    }

    fn mount_by_page(&self, target: &Path) -> io::Result<()> {
        let volatile = self.upper.is_some_and(|upper| upper.volatile);
        let mount = |options: &str| {
            let options = std::ffi::CString::new(options)?;
            let none = MountFlags::empty();
            io::Result::Ok(mount(c"overlay", target, c"overlay", none, options.as_c_str())?)
        };
        let options = self.page();
        if !volatile {
            return mount(&options);
        }
        match mount(&format!("{options},volatile")) {
            // A kernel that does not know it has done nothing; others may have left its mark.
            Err(error) if errno(&error) == Some(Errno::INVAL) => mount(&options),
            other => other,
        }
    }

    fn page(&self) -> String {
        let lower: Vec<String> = self.lower.iter().map(|fd| proc_name(*fd)).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some(Upper { upper, work, .. }) = self.upper {
            let (upper, work) = (proc_name(upper), proc_name(work));
            options.push_str(&format!(",upperdir={upper},workdir={work}"));
        }
        options
    }
}

fn proc_name(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF))
}

/// Whether the kernel has said more than a number.
fn is_in_words(error: Option<&io::Error>) -> bool {
    error.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Refused>())
}

/// The number behind an error, also where [`Refused`] wraps it.
fn errno(error: &io::Error) -> Option<Errno> {
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    refused.map(|refused| refused.errno).or_else(|| Errno::from_io_error(error))
}

fn create(fs: &OwnedFd, attributes: Attributes) -> io::Result<Detached> {
    fsconfig_create(fs)?;
    Ok(Detached(fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())?))
}

/// The kernel's refusal of a filesystem, with what it said about it.
#[derive(Debug)]
struct Refused {
    errno: Errno,
    said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.errno, self.said)
    }
}

impl std::error::Error for Refused {}

/// Adds the messages that the kernel left in the filesystem's context.
fn in_words(fs: &OwnedFd, error: io::Error) -> io::Error {
    let Some(errno) = Errno::from_io_error(&error) else { return error };
    let Ok(copy) = fs.try_clone() else { return error };
    let mut context = std::fs::File::from(copy);
    let mut said = Vec::new();
    let mut line = [0; 1024];
    while let Ok(length @ 1..) = context.read(&mut line) {
        said.push(String::from_utf8_lossy(&line[..length]).trim().to_owned());
    }
    if said.is_empty() {
        return error;
    }
    io::Error::new(error.kind(), Refused { errno, said: said.join("; ") })
}

/// Makes the mount at `target`, and those beneath it, receive mounts of the host's, and send none.
pub fn make_slave(target: &Path) -> io::Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change(target, flags)?)
}

/// Makes the mount at `target`, and those beneath it, neither send nor receive mounts.
pub fn make_private(target: &Path) -> io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change(target, flags)?)
}

/// Whether something is mounted upon `target` itself. No such path is a no.
pub fn is_mounted(target: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, target, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// How many mounts one upon the other [`unmount`] takes away.
const STACKED: u32 = 16;

/// Unmounts all that is mounted upon `target` now, whoever still uses it; what is used goes when
/// its last user does. Idempotent: gives back whether there was anything.
pub fn unmount(target: &Path) -> io::Result<bool> {
    for round in 0..STACKED {
        match umount2(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => return Ok(round > 0),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::BUSY.into())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{beneath::open_root, kernel};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            let place = Place(tempfile::tempdir().unwrap());
            for dir in ["target", "upper", "work"] {
                fs::create_dir(place.at(dir)).unwrap();
            }
            place
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn dir(&self, name: &str) -> OwnedFd {
            fs::create_dir_all(self.at(name)).unwrap();
            open_root(&self.at(name)).unwrap()
        }

        fn overlay(&self, layers: usize, telling: Telling) -> io::Result<()> {
            let lower: Vec<OwnedFd> = (0..layers)
                .map(|n| {
                    let dir = self.dir(&format!("lower{n}"));
                    fs::write(self.at(&format!("lower{n}/file{n}")), n.to_string()).unwrap();
                    dir
                })
                .collect();
            let lower: Vec<_> = lower.iter().map(AsFd::as_fd).collect();
            let (upper, work) = (self.dir("upper"), self.dir("work"));
            let upper = Upper { upper: upper.as_fd(), work: work.as_fd(), volatile: true };
            Overlay { lower: &lower, upper: Some(upper) }.mount_by(telling, &self.at("target"))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = unmount(&self.at("target"));
        }
    }

    #[test]
    fn an_overlay_is_the_same_however_the_kernel_is_told() {
        let ways = [(Telling::Descriptors, 6, 13), (Telling::Names, 6, 5), (Telling::Page, 0, 0)];
        for (telling, major, minor) in ways {
            if kernel::is_older(major, minor, "an overlay told otherwise") {
                continue;
            }
            let place = Place::new();
            place.overlay(3, telling).unwrap();
            assert!(is_mounted(&place.at("target")).unwrap());
            for n in 0..3 {
                let text = fs::read_to_string(place.at(&format!("target/file{n}"))).unwrap();
                assert_eq!(text, n.to_string(), "{telling:?}");
            }
            fs::write(place.at("target/new"), "new").unwrap();
            assert!(place.at("upper/new").exists());
            assert!(place.at("work/work/incompat/volatile").exists(), "{telling:?}");
            assert!(unmount(&place.at("target")).unwrap());
            assert!(!unmount(&place.at("target")).unwrap());
        }
    }

    #[test]
    fn an_overlay_can_be_looked_into_before_it_is_anywhere() {
        if kernel::is_older(6, 5, "an overlay that is attached nowhere") {
            return;
        }
        let place = Place::new();
        let layers = ["one", "two"].map(|name| {
            let dir = place.dir(name);
            fs::write(place.at(name).join(name), name).unwrap();
            dir
        });
        let lower = [layers[0].as_fd(), layers[1].as_fd()];
        let shown = Overlay { lower: &lower, upper: None }.make().unwrap();
        for name in ["one", "two"] {
            assert!(crate::beneath::stat(&shown, name).unwrap().is_some(), "{name}");
        }
        let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let made = rustix::fs::openat(&shown, "new", create, rustix::fs::Mode::RUSR);
        assert_eq!(made.unwrap_err(), Errno::ROFS);
    }

    #[test]
    fn three_hundred_layers_are_one_overlay() {
        if kernel::is_older(6, 13, "an overlay told by descriptors") {
            return;
        }
        let place = Place::new();
        place.overlay(300, Telling::Descriptors).unwrap();
        assert!(place.at("target/file299").exists() && place.at("target/file0").exists());
    }

    #[test]
    fn a_refused_overlay_says_why_and_mounts_nothing() {
        let place = Place::new();
        let (lower, work) = (place.dir("lower"), place.dir("work"));
        let file = fs::File::create(place.at("file")).unwrap();
        let upper = Upper { upper: file.as_fd(), work: work.as_fd(), volatile: true };
        let overlay = Overlay { lower: &[lower.as_fd()], upper: Some(upper) };
        let error = overlay.mount(&place.at("target")).unwrap_err();
        assert!(error.to_string().contains("director"), "{error}");
        assert!(!is_mounted(&place.at("target")).unwrap());
    }

    #[test]
    fn a_tmpfs_has_the_size_and_mode_that_were_asked_for() {
        let place = Place::new();
        let read_only = Attributes { no_exec: true, ..Attributes::default() };
        let tmpfs =
            Tmpfs { size: Some(1 << 20), inodes: Some(64), mode: 0o1777, attributes: read_only };
        tmpfs.make().unwrap().attach(&place.at("target")).unwrap();
        let stat = rustix::fs::statvfs(place.at("target")).unwrap();
        assert_eq!((stat.f_blocks * stat.f_frsize, stat.f_files), (1 << 20, 64));
        assert!(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC));
        let mode = rustix::fs::stat(place.at("target")).unwrap().st_mode;
        assert_eq!(mode & 0o7777, 0o1777);
    }

    #[test]
    fn a_bind_can_be_made_read_only_before_anybody_sees_it() {
        let place = Place::new();
        fs::write(place.at("upper/file"), "f").unwrap();
        let bound = bind(place.dir("upper"), false).unwrap();
        bound.set(Attributes { read_only: true, ..Attributes::default() }, true).unwrap();
        bound.attach_to(place.dir("target")).unwrap();
        assert!(place.at("target/file").exists());
        let error = fs::write(place.at("target/other"), "o").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn a_mount_that_is_dropped_was_never_there() {
        let place = Place::new();
        drop(bind(place.dir("upper"), false).unwrap());
        assert!(!is_mounted(&place.at("target")).unwrap());
        assert!(!unmount(&place.at("nothing")).unwrap());
    }
}
