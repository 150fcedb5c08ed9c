//! User namespaces, and namespaces that belong to one: made by a child that does nothing else, mapped
//! and pinned from here. Only a process of one thread can enter a user namespace, so that this
//! process never does; what is in one is done by the shim's copies.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    mount,
    pin::{self, Kind, naming},
};

/// A run of ids: `size` of them, from `inside` in the namespace and `outside` of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// Whose ids are which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    pub uids: Vec<Mapping>,
    pub gids: Vec<Mapping>,
}

impl Maps {
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Gives them to the user namespace of a process that has none yet.
    pub fn give_to(&self, pid: u32) -> io::Result<()> {
        for (file, maps) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text(maps)).map_err(|e| naming(&format!("writing {path}"), e))?;
        }
        Ok(())
    }
}

fn text(maps: &[Mapping]) -> String {
    let line = |m: &Mapping| format!("{} {} {}\n", m.inside, m.outside, m.size);
    maps.iter().map(line).collect()
}

/// A user namespace that lives for as long as the descriptor: to map a mount by. Blocks for about a
/// millisecond.
pub fn anonymous(maps: &Maps) -> io::Result<OwnedFd> {
    let child = Child::start(None, libc::CLONE_NEWUSER)?;
    maps.give_to(child.pid)?;
    Ok(fs::File::open(format!("/proc/{}/ns/user", child.pid))?.into())
}

/// Makes a user namespace, and pins it to `path`, which must not exist. Blocks for about a
/// millisecond.
///
/// # Errors
/// `AlreadyExists` if `path` does; else what the kernel said. Nothing is left at `path` then.
pub fn make(path: &Path, maps: &Maps) -> io::Result<()> {
    pin::place(path)?;
    let make = || {
        let child = Child::start(None, libc::CLONE_NEWUSER)?;
        maps.give_to(child.pid)?;
        pin::others(child.pid, Kind::User, path)
    };
    make().inspect_err(|_| {
        // What went wrong first is what the caller is told.
        let _ = pin::unmake(path);
    })
}

/// Makes namespaces that belong to the user namespace at `user`, and pins each to its file, which is
/// there and empty.
pub(crate) fn make_within(user: &Path, wanted: &[(Kind, &Path)]) -> io::Result<()> {
    let owner = pin::open(user, Kind::User)?;
    let flags = wanted.iter().fold(0, |all, (kind, _)| all | kind.flag());
    let child = Child::start(Some(owner.as_fd()), flags)?;
    wanted.iter().try_for_each(|(kind, path)| pin::others(child.pid, *kind, path))
}

/// A child in namespaces of its own, which waits to be dropped.
struct Child {
    pid: u32,
    /// It ends when nobody holds this end any more, and so also when we are killed.
    _leash: OwnedFd,
}

impl Child {
    /// Returns when it is where it shall be.
    fn start(owner: Option<BorrowedFd<'_>>, flags: libc::c_int) -> io::Result<Self> {
        let (wait, leash) = pipe_with(PipeFlags::CLOEXEC)?;
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC)?;
        let fds = Fds {
            owner: owner.map_or(-1, |fd| fd.as_raw_fd()),
            wait: wait.as_raw_fd(),
            leash: leash.as_raw_fd(),
            tell: tell.as_raw_fd(),
        };
        let pid = copy()?;
        if pid == 0 {
            be_a_child(&fds, flags);
        }
        let child = Self { pid, _leash: leash };
        drop(tell);
        let mut errno = [0; 4];
        match rustix::io::read(&told, &mut errno)? {
            4 if i32::from_ne_bytes(errno) == 0 => Ok(child),
            4 => {
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                Err(naming("making namespaces", error))
            }
            _ => Err(io::Error::other("a child that was to make namespaces ended early")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let pid = self.pid.cast_signed();
        // SAFETY: it is our child, which nobody else waits for: it ends without a signal.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

struct Fds {
    owner: i32,
    wait: i32,
    leash: i32,
    tell: i32,
}

/// A copy of this process, with the one thread that calls, which ends without a signal; 0 in the
/// copy.
fn copy() -> io::Result<u32> {
    // SAFETY: all zeroes are valid, and mean: as `fork`, but no signal at the end.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call, and its size is given. The copy has its own memory.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// What the copy does: system calls and nothing else, since another thread may have held any lock
/// when it was copied.
fn be_a_child(fds: &Fds, flags: libc::c_int) -> ! {
    let mut byte = 0_u8;
    // SAFETY: the descriptors are open, and the copy's own; the buffers outlive the calls; nothing
    // here allocates or locks.
    unsafe {
        libc::close(fds.leash);
        let ok = (fds.owner < 0 || libc::setns(fds.owner, libc::CLONE_NEWUSER) == 0)
            && libc::unshare(flags) == 0;
        let errno: i32 = if ok { 0 } else { *libc::__errno_location() };
        libc::write(fds.tell, (&raw const errno).cast(), size_of::<i32>());
        libc::read(fds.wait, (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

/// Whether files below `dir` can be shown as owned by others, in a user namespace that we may make:
/// it takes a kernel and a filesystem that can. Blocks for about a millisecond.
pub fn can_map(dir: &Path) -> bool {
    let one = vec![Mapping { inside: 0, outside: 65_536, size: 65_536 }];
    let map = || {
        let namespace = anonymous(&Maps { uids: one.clone(), gids: one })?;
        mount::bind(fs::File::open(dir)?, false)?.map_owners(namespace.as_fd())
    };
    map().is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;
    use crate::netns::tests::as_root_in_own_mounts;

    const MAP: Mapping = Mapping { inside: 0, outside: 100_000, size: 65_536 };

    #[test]
    fn a_namespace_is_pinned_mapped_and_owns_what_is_made_within() {
        as_root_in_own_mounts(|dir| {
            let (user, net, ipc) = (dir.join("user"), dir.join("net"), dir.join("ipc"));
            make(&user, &Maps { uids: vec![MAP], gids: vec![MAP] }).unwrap();
            assert!(pin::is_pinned(&user, Kind::User));
            for (kind, path) in [(Kind::Network, &net), (Kind::Ipc, &ipc)] {
                pin::place(path).unwrap();
                make_within(&user, &[(kind, path)]).unwrap();
                assert!(pin::is_pinned(path, kind));
                let owner = owner_of(path);
                assert_eq!(owner, identity(&pin::open(&user, Kind::User).unwrap()), "{kind:?}");
            }
            for path in [&user, &net, &ipc] {
                pin::unmake(path).unwrap();
            }
        });
    }

    /// `NS_GET_USERNS` (`linux/nsfs.h`).
    fn owner_of(path: &Path) -> (u64, u64) {
        let ns = fs::File::open(path).unwrap();
        // SAFETY: the descriptor is open, and this request takes no argument and gives another.
        let owner = unsafe {
            let fd = libc::ioctl(ns.as_raw_fd(), 0xb701);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        identity(&owner)
    }

    fn identity(fd: &OwnedFd) -> (u64, u64) {
        let stat = rustix::fs::fstat(fd).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    #[test]
    fn maps_that_the_kernel_refuses_leave_nothing() {
        as_root_in_own_mounts(|dir| {
            let user = dir.join("user");
            let maps = Maps { uids: vec![MAP, MAP], gids: vec![MAP] };
            let error = make(&user, &maps).unwrap_err();
            assert!(error.to_string().contains("uid_map"), "{error}");
            assert!(!user.exists());
        });
    }
}
