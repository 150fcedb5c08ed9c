//! The terminal of a command, made where the command runs: in the container's own `devpts`, so
//! that the command can find it there. The terminal of a container is made by its runtime.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    fs::{FileType, Mode, OFlags, Uid, major, minor},
    process::ioctl_tiocsctty,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use shim_api::Size;

use crate::{console, program::Failure, stdio};

const PTMX: &str = "/dev/pts/ptmx";

/// The device number of [`PTMX`], and of nothing else.
const NUMBER: (u32, u32) = (5, 2);

/// What `statfs` says of a `devpts`.
const MAGIC: i128 = 0x1cd1;

/// Makes a terminal of this size for this user of the container, sends its master away, and makes
/// it all of our stdio. We lead a session, and are inside, and may still do everything.
pub fn take(console: &UnixStream, size: Size, user: u32) -> Result<(), Failure> {
    // In a user namespace we are nobody yet, and what nobody has made can be given to nobody. The
    // namespace may be without a root, and then that is how it stays.
    let root = (rustix::thread::Gid::ROOT, rustix::thread::Uid::ROOT);
    let _ = set_thread_res_gid(root.0, root.0, root.0);
    let _ = set_thread_res_uid(root.1, root.1, root.1);
    let make = || {
        let (master, terminal) = open()?;
        rustix::fs::fchown(&terminal, Some(Uid::from_raw(user)), None)?;
        Ok((master, terminal))
    };
    let (master, terminal) =
        make().map_err(Failure::on_the_way::<io::Error>("making a terminal with /dev/pts/ptmx"))?;
    stdio::resize(&master, size.width, size.height).map_err(|e| Failure::of_runtime(e.words()))?;
    console::send(console, master.as_fd()).map_err(Failure::on_the_way("sending the terminal"))?;
    let control = || {
        ioctl_tiocsctty(&terminal)?;
        rustix::stdio::dup2_stdin(&terminal)?;
        rustix::stdio::dup2_stdout(&terminal)?;
        rustix::stdio::dup2_stderr(&terminal)
    };
    control().map_err(Failure::on_the_way("taking the terminal"))
}

/// The two sides of a new one. The second is had from the first, and not by a path.
fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    // The container may have put anything there: opening that must not wait for anybody, and it is
    // looked at before it is used (CVE-2025-52565).
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::open(PTMX, flags, Mode::empty())?;
    if !is_ptmx(&master)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is something else"));
    }
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, terminal))
}

fn is_ptmx(file: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    let system = rustix::fs::fstatfs(file)?.f_type;
    Ok(device && number == NUMBER && i128::from(system) == MAGIC)
}
