//! Waiting for a process by its pidfd. Nothing here reaps: that is its parent's.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Returns when the process that `pidfd` stands for has ended. The descriptor must be of
/// `pidfd_open` with `PIDFD_NONBLOCK`, as Linux ≥ 5.10 has it.
pub async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, for as long as it lives, and the
    // `AsyncFd` owns it.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
    pidfd.readable().await.map(drop)
}
