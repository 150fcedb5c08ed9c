//! A descriptor to read from without blocking: a pipe, a pseudo-terminal, a listening socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{buffer::spare_capacity, fs::OFlags};
use tokio::io::{Interest, unix::AsyncFd};

pub struct Source(AsyncFd<OwnedFd>);

impl Source {
    /// Takes the descriptor, and sets it not to block.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, for as long as it lives,
        // and the `AsyncFd` owns it and does not give it away.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Self(fd))
    }

    /// Reads what there is, once there is something; 0 at the end. A terminal whose last process
    /// has closed it gives EIO, which is an end too.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.when_ready(|fd| rustix::io::read(fd, &mut *into).map_err(Into::into)).await;
        match read {
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(0),
            read => read,
        }
    }

    /// Waits until there is something to read, without reading it.
    pub async fn ready(&self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        guard.retain_ready();
        Ok(())
    }

    /// Reads what there is and fits, after [`Source::ready`]. `None` if there was nothing after all.
    pub fn read_ready(&self, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, spare_capacity(into))?);
        some(self.0.try_io(Interest::READABLE, read))
    }

    /// Reads what there is and fits, even if the event loop has not heard of it yet. `None` if there is
    /// nothing. Not to be used together with the others, which would wait in vain or not at all.
    pub fn read_left(&self, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
        some(rustix::io::read(self, spare_capacity(into)).map_err(io::Error::from))
    }

    /// Does something with the descriptor as often as it would block, but when it is ready.
    pub async fn when_ready<T>(
        &self,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|fd| act(fd.get_ref().as_fd())) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

fn some(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(Some(0)),
        Err(e) => Err(e),
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
