//! Namespaces pinned to files, by a bind mount, so that they live without a process. Whoever changes
//! its namespace does so on a thread that ends with the work: no thread that anybody else uses ever
//! does.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic,
    path::Path,
    thread,
};

use rustix::{
    fs::{Mode, OFlags, fstatfs},
    mount::{UnmountFlags, mount_bind, unmount},
};

/// The file system that namespace files live on (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// `NS_GET_NSTYPE` (`linux/nsfs.h`): which kind of namespace an open file is.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The kinds of namespaces that are pinned here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Network,
    Ipc,
    Uts,
    User,
}

impl Kind {
    /// What `/proc` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
        }
    }

    /// What `clone(2)` calls it.
    pub(crate) fn flag(self) -> libc::c_int {
        match self {
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::User => libc::CLONE_NEWUSER,
        }
    }
}

/// Makes the empty file that a namespace is to be pinned to, and missing directories above it.
pub(crate) fn place(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path).map(drop)
}

/// Pins the namespace that this thread is in.
pub(crate) fn own(kind: Kind, path: &Path) -> io::Result<()> {
    mount_bind(format!("/proc/thread-self/ns/{}", kind.name()), path)
        .map_err(|e| naming("pinning", e.into()))
}

/// Pins a namespace that is held open.
pub(crate) fn held(ns: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    mount_bind(format!("/proc/thread-self/fd/{}", ns.as_raw_fd()), path)
        .map_err(|e| naming("pinning", e.into()))
}

/// Opens the namespace that this thread is in.
pub(crate) fn own_fd(kind: Kind) -> io::Result<OwnedFd> {
    let file = format!("/proc/thread-self/ns/{}", kind.name());
    Ok(rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Pins a namespace of another process.
pub(crate) fn others(pid: u32, kind: Kind, path: &Path) -> io::Result<()> {
    mount_bind(format!("/proc/{pid}/ns/{}", kind.name()), path)
        .map_err(|e| naming("pinning", e.into()))
}

/// Whether a namespace of this kind is pinned at `path`. An empty file that waits for one is none.
pub fn is_pinned(path: &Path, kind: Kind) -> bool {
    open(path, kind).is_ok()
}

/// Opens the namespace that is pinned at `path`.
pub(crate) fn open(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Only a file of nsfs is opened in earnest: opening any other could block, or do something.
    if u64::try_from(fstatfs(&place)?.f_type) != Ok(NSFS_MAGIC) {
        return Err(not_one(path, kind));
    }
    let ns = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_of(ns.as_fd(), kind)? { Ok(ns) } else { Err(not_one(path, kind)) }
}

/// Unpins what is at `path`, however often it was mounted there, and removes the file. The namespace
/// itself lives on while anything else holds it. Idempotent, and content with a namespace that was
/// never made, or only half.
///
/// # Errors
/// What the kernel said, except that nothing was there.
pub fn unmake(path: &Path) -> io::Result<()> {
    while detach(path)? {}
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own.
pub(crate) fn on_a_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.into()).spawn_scoped(scope, work)?;
        thread.join().map_or_else(|cause| panic::resume_unwind(cause), Ok)
    })
}

pub(crate) fn naming(doing: &str, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{doing}: {e}"))
}

fn is_of(ns: BorrowedFd<'_>, wanted: Kind) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and this request takes no argument.
    match unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind == wanted.flag()),
    }
}

fn not_one(path: &Path, kind: Kind) -> io::Error {
    let what = format!("{} is not a namespace of the kind {}", path.display(), kind.name());
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Takes the topmost mount off `path`; false if there was none.
fn detach(path: &Path) -> io::Result<bool> {
    use rustix::io::Errno;
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
