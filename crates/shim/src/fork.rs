//! Copies of this process. It has one thread, so that a copy may do whatever the original may:
//! allocate, panic, become a container. All `fork` is here.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::OnceLock,
};

/// The number of signals, real-time ones included.
const SIGNALS: i32 = 64;

static OOM_SCORE: OnceLock<String> = OnceLock::new();

/// Remembers the OOM score that children shall start with, before our own is lowered.
pub fn remember_oom_score() {
    let score = std::fs::read_to_string(OOM_SCORE_FILE).unwrap_or_default();
    OOM_SCORE.get_or_init(|| score);
}

pub const OOM_SCORE_FILE: &str = "/proc/self/oom_score_adj";

/// Runs `child` in a copy of this process, whose exit status is what it returns, and gives the
/// copy's pid. The copy begins
/// with no signal blocked or handled, but SIGPIPE ignored, with the OOM score that we were started with, and with no
/// descriptor but 0, 1, 2 and `keep`.
///
/// The copy must not use the async runtime. Its `std` values are copies too: descriptors that
/// they own, and that are not kept, are closed.
pub fn fork(keep: &[RawFd], child: impl FnOnce() -> i32) -> io::Result<u32> {
    debug_assert_eq!(threads(), 1, "a copy of one thread of many may find locks held for ever");
    let unblocked = block_signals();
    // SAFETY: there is one thread, so that no lock is held by one that the copy does not have.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        reset_signals();
        close_but(keep);
        begin_oom_score();
        exit(catch_unwind(AssertUnwindSafe(child)).unwrap_or(101));
    }
    let error = io::Error::last_os_error();
    restore_signals(&unblocked);
    if pid < 0 { Err(error) } else { Ok(pid.cast_unsigned()) }
}

/// A copy of this process in new namespaces, by `clone3`, and with a cgroup born into that (version 2,
/// Linux 5.7). 0 in the copy, which is in all else as this process, a copy itself.
pub fn birth(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<u32> {
    debug_assert_eq!(threads(), 1, "a copy of one thread of many may find locks held for ever");
    // SAFETY: all zeroes are valid, and mean: as `fork`.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(namespaces.cast_unsigned());
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the structure outlives the call, which only reads it, and its size is given. The copy has
    // its own memory, and there is one thread, so that no lock is held by one that the copy has not.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    u32::try_from(pid).map_err(|_| io::Error::last_os_error())
}

/// `linux/sched.h`; it does not fit in the `c_int` of the others.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Ends a copy, without running what belongs to the original: destructors, buffers, hooks.
pub fn exit(code: i32) -> ! {
    // SAFETY: it does not return, and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Gives a program that `std` starts the OOM score that we were started with.
pub fn begin_oom_score() {
    if let Some(score) = OOM_SCORE.get() {
        // Raising it again is always allowed.
        let _ = std::fs::write(OOM_SCORE_FILE, score);
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: both sets are ours and initialised before they are read; all zero is a valid set.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the set is valid; a null pointer asks for nothing back.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
}

/// The event loop's handlers write to a pipe whose number is soon another descriptor's. SIGPIPE
/// stays ignored, as Rust code expects, until something is executed.
fn reset_signals() {
    // SAFETY: neither action needs a handler; the sets are initialised before they are read.
    unsafe {
        for signal in 1..=SIGNALS {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Closes every descriptor from 3 on, but those.
fn close_but(keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        close_range(first, fd.cast_unsigned().saturating_sub(1), 0);
        first = fd.cast_unsigned() + 1;
    }
    close_range(first, u32::MAX, 0);
}

/// Marks every descriptor from 3 on to be closed by the next `execve`.
pub fn close_on_exec() {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) {
    if first > last {
        return;
    }
    // SAFETY: the values that own these descriptors are copies that are never used or dropped,
    // since a copy leaves by `exit` or by `execve`.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}
