//! A pipe or a terminal as a stream of bytes for tokio.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{fs::OFlags, io::Errno};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

/// Reads and writes a descriptor of which others may have copies.
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes a descriptor that can be waited for, and sets it not to block.
    ///
    /// # Errors
    /// It is a regular file, or the kernel's own.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, for as long as it lives, and the
        // `AsyncFd` owns it and does not give it away.
        Ok(Self(unsafe { AsyncFd::register(fd)? }))
    }
}

impl AsyncRead for Stream {
    /// A terminal whose last process has closed it gives EIO, which is its end.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let into = buf.initialize_unfilled();
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), into)?));
            match read {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            let written = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?));
            match written {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A pipe is closed by dropping it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_pipe_carries_more_than_it_holds_and_then_ends() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        let (mut from, mut to) = (Stream::new(from).unwrap(), Stream::new(to).unwrap());
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move { to.write_all(&copy).await });
        let mut got = Vec::new();
        from.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap().unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn writing_to_a_pipe_that_nobody_reads_is_an_error() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        drop(from);
        let error = Stream::new(to).unwrap().write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
