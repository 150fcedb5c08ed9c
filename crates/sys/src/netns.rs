//! Network namespaces: made and pinned to a file, unpinned, entered by a thread that then ends. No
//! interface but `lo` is touched here.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

pub use crate::pin::unmake;
use crate::{
    pin::{self, Kind, naming, on_a_thread},
    sysctl, userns,
};

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
    Unpinned::make(sysctls)?.pin(path, &[])
}

/// A network namespace that is pinned nowhere yet: it is gone with this handle.
pub struct Unpinned(OwnedFd);

impl Unpinned {
    /// Makes one as [`make`] does. Blocks as long.
    ///
    /// # Errors
    /// As those of [`make`].
    pub fn make(sysctls: &[(&str, &str)]) -> io::Result<Self> {
        let sysctls = files(sysctls)?;
        on_a_thread("netns", || make_on_this_thread(&sysctls)).flatten().map(Self)
    }

    /// Sets more sysctls in it, and pins it to `path`, as [`make`] does. Blocks, but for no longer than a
    /// mount takes if there are no sysctls.
    ///
    /// # Errors
    /// As those of [`make`].
    pub fn pin(self, path: &Path, sysctls: &[(&str, &str)]) -> io::Result<()> {
        let sysctls = files(sysctls)?;
        if !sysctls.is_empty() {
            within_fd(self.0.as_fd(), || sysctl::write(&sysctls)).flatten()?;
        }
        pin::place(path)?;
        pin::held(self.0.as_fd(), path).inspect_err(|_| unmake_half(path))
    }
}

/// As [`make`], but the namespace belongs to the user namespace that is pinned at `user`.
pub fn make_within(user: &Path, path: &Path, sysctls: &[(&str, &str)]) -> io::Result<()> {
    let sysctls = files(sysctls)?;
    pin::place(path)?;
    let make = || {
        userns::make_within(user, &[(Kind::Network, path)])?;
        within(path, || {
            raise_loopback().map_err(|e| naming("raising lo", e))?;
            sysctl::write(&sysctls)
        })
        .flatten()
    };
    make().inspect_err(|_| unmake_half(path))
}

/// What went wrong first is what the caller is told; a leftover is unmade by the next undo.
fn unmake_half(path: &Path) {
    let _ = unmake(path);
}

fn files<'a>(sysctls: &[(&str, &'a str)]) -> io::Result<Vec<(PathBuf, &'a str)>> {
    sysctls.iter().map(|(name, value)| Ok((sysctl_file(name)?, *value))).collect()
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
    pin::open(path, Kind::Network)
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
    on_a_thread("netns", || {
        move_into_link_name_space(ns, Some(LinkNameSpaceType::Network))?;
        Ok(work())
    })
    .flatten()
}

/// Moves this thread into the namespace that is pinned at `path`.
pub(crate) fn enter(path: &Path) -> io::Result<()> {
    let ns = open_netns(path)?;
    Ok(move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn make_on_this_thread(sysctls: &[(PathBuf, &str)]) -> io::Result<OwnedFd> {
    // SAFETY: only unsharing the descriptor table can harm other threads; this is the network's.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|e| naming("unshare", e.into()))?;
    raise_loopback().map_err(|e| naming("raising lo", e))?;
    sysctl::write(sysctls)?;
    pin::own_fd(Kind::Network)
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

/// Where a sysctl of the network lives.
fn sysctl_file(name: &str) -> io::Result<PathBuf> {
    let file = sysctl::file(name)?;
    if file.strip_prefix("/proc/sys/net").is_ok_and(|rest| !rest.as_os_str().is_empty()) {
        return Ok(file);
    }
    let what = format!("{name:?} is not a sysctl of a network namespace");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
pub(crate) mod tests;
