//! Network namespaces: made and pinned to a file, unpinned, entered by a thread that then ends. No
//! interface but `lo` is touched here, and no thread that anybody else uses ever changes its
//! namespace.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic,
    path::{Component, Path, PathBuf},
    thread,
};

use rustix::{
    fs::{Mode, OFlags, fstatfs, open},
    mount::{UnmountFlags, mount_bind, unmount},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// The file system that namespace files live on (`linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// `NS_GET_NSTYPE` (`linux/nsfs.h`): which kind of namespace an open file is.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Makes a network namespace, with `lo` up and the given sysctls set, and pins it to `path`, which
/// must not exist. Missing parent directories are made. Blocks, for
/// about half a millisecond.
///
/// Sysctls are named as `sysctl(8)` names them (`net.ipv4.ping_group_range`, or with slashes) and
/// must all begin with `net.`: others do not belong to a network namespace.
///
/// # Errors
/// `InvalidInput` for a sysctl that is not of the network, before anything is made; `AlreadyExists`
/// if `path` does; else what the kernel said. Nothing is left at `path` then.
pub fn make(path: &Path, sysctls: &[(&str, &str)]) -> io::Result<()> {
    let sysctls = sysctls
        .iter()
        .map(|(name, value)| Ok((sysctl_file(name)?, *value)))
        .collect::<io::Result<Vec<_>>>()?;
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    on_a_thread(|| make_on_this_thread(path, &sysctls)).flatten().inspect_err(|_| {
        // What went wrong first is what the caller is told; a leftover is unmade by the next undo.
        let _ = unmake(path);
    })
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

/// Whether a network namespace is pinned at `path`. An empty file that waits for one is none.
pub fn is_netns(path: &Path) -> bool {
    open_netns(path).is_ok()
}

/// Opens the namespace pinned at `path`: a handle that keeps it alive, for [`within_fd`].
///
/// # Errors
/// `NotFound`, or `InvalidInput` if what is there is not a network namespace.
pub fn open_netns(path: &Path) -> io::Result<OwnedFd> {
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Only a file of nsfs is opened in earnest: opening any other could block, or do something.
    if u64::try_from(fstatfs(&place)?.f_type) != Ok(NSFS_MAGIC) {
        return Err(not_a_netns(path));
    }
    let ns = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_of_the_network(ns.as_fd())? { Ok(ns) } else { Err(not_a_netns(path)) }
}

/// Runs `work` on a fresh thread inside the namespace pinned at `path`, and waits for it. A socket
/// that it opens and returns stays in that namespace. Blocks; a panic of `work` goes on here.
///
/// # Errors
/// As [`open_netns`], and if no thread could be started or moved.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    within_fd(open_netns(path)?.as_fd(), work)
}

/// As [`within`], in the namespace that `ns` holds open.
///
/// # Errors
/// If `ns` is no network namespace, or no thread could be started or moved.
pub fn within_fd<T: Send>(ns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        move_into_link_name_space(ns, Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
    .flatten()
}

/// A namespace is a thread's own matter, so whoever changes it does so on a thread that ends with
/// the work.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_or_else(|cause| panic::resume_unwind(cause), Ok)
    })
}

fn make_on_this_thread(path: &Path, sysctls: &[(PathBuf, &str)]) -> io::Result<()> {
    // SAFETY: only unsharing the descriptor table can harm other threads; this is the network's.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|e| naming("unshare", e.into()))?;
    raise_loopback().map_err(|e| naming("raising lo", e))?;
    for (file, value) in sysctls {
        // The kernel shows each thread the files of the namespace that thread is in.
        fs::write(file, value).map_err(|e| naming(&format!("writing {}", file.display()), e))?;
    }
    mount_bind("/proc/thread-self/ns/net", path).map_err(|e| naming("pinning", e.into()))
}

fn naming(doing: &str, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{doing}: {e}"))
}

fn raise_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a request is plain integers and bytes, of which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the descriptor is open and the request outlives the call, which only reads it.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `IFF_UP` in the width that an interface request has for flags.
const UP: libc::c_short = 1;

fn is_of_the_network(ns: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and this request takes no argument.
    match unsafe { libc::ioctl(ns.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind == libc::CLONE_NEWNET),
    }
}

fn not_a_netns(path: &Path) -> io::Error {
    let what = format!("{} is not a network namespace", path.display());
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

/// Where a sysctl of the network lives. As in `sysctl(8)`, whichever of `.` and `/` comes first
/// separates, and the other is then a plain letter of a name (`net/ipv4/conf/eth0.1/forwarding`);
/// with dots as separators, a slash stands for a dot in a name.
fn sysctl_file(name: &str) -> io::Result<PathBuf> {
    let dotted = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let swapped: String = if dotted {
        name.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    } else {
        name.to_owned()
    };
    let below = Path::new(&swapped);
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || !swapped.starts_with("net/") || swapped.contains('\0') {
        let what = format!("{name:?} is not a sysctl of a network namespace");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(Path::new("/proc/sys").join(below))
}

#[cfg(test)]
mod tests;
