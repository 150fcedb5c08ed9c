//! One connection to a shim, made when first needed and made again when it was lost.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Mutex,
    time::timeout,
};
use ttrpc::r#async::{Client, transport::Socket};

use super::Error;
use crate::address::{Address, Stream};

/// Whether a call that may have been done already may be done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Harmless,
    Never,
}

#[derive(Clone)]
struct Line {
    client: Client,
    lost: Arc<AtomicBool>,
}

impl Line {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

pub(super) struct Connection {
    address: Address,
    line: Mutex<Option<Line>>,
}

impl Connection {
    pub(super) fn new(address: Address) -> Self {
        Self { address, line: Mutex::new(None) }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Does `call` within the time. If the connection breaks, a repeatable call is done once more
    /// on a new one; another is an [`Error::Broken`].
    pub(super) async fn call<R, F: Future<Output = ttrpc::Result<R>>>(
        &self,
        name: &'static str,
        within: Duration,
        repeat: Repeat,
        call: impl Fn(Client) -> F,
    ) -> Result<R, Error> {
        let late = || Error::Late { address: self.address.clone(), call: name, within };
        timeout(within, self.attempt(name, repeat, call)).await.map_err(|_| late())?
    }

    /// The same without a limit of time: for long polls.
    pub(super) async fn attempt<R, F: Future<Output = ttrpc::Result<R>>>(
        &self,
        name: &'static str,
        repeat: Repeat,
        call: impl Fn(Client) -> F,
    ) -> Result<R, Error> {
        let (line, fresh) = self.line().await?;
        let error = match call(line.client.clone()).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        if let Some(refusal) = Error::refusal(&error) {
            return Err(refusal);
        }
        line.lost.store(true, Ordering::Release);
        if repeat == Repeat::Never || fresh {
            return Err(self.broken(name, error));
        }
        let (line, _) = self.line().await?;
        call(line.client.clone()).await.map_err(|error| match Error::refusal(&error) {
            Some(refusal) => refusal,
            None => self.broken(name, error),
        })
    }

    /// The present connection, or a new one if there is none or it was lost; and whether it is new.
    async fn line(&self) -> Result<(Line, bool), Error> {
        let mut slot = self.line.lock().await;
        if let Some(line) = slot.as_ref().filter(|line| !line.is_lost()) {
            return Ok((line.clone(), false));
        }
        let lost = Arc::new(AtomicBool::new(false));
        let stream = self.address.connect().await.map_err(|source| self.unreachable(source))?;
        let watched = Watched { stream, lost: lost.clone() };
        let line = Line { client: Client::new(Socket::new(watched)), lost };
        *slot = Some(line.clone());
        Ok((line, true))
    }

    fn unreachable(&self, source: io::Error) -> Error {
        Error::Unreachable { address: self.address.clone(), source }
    }

    fn broken(&self, call: &'static str, source: ttrpc::Error) -> Error {
        Error::Broken { address: self.address.clone(), call, source }
    }
}

/// A stream that remembers that its peer has gone, so that the next call need not find out.
struct Watched {
    stream: Pin<Box<dyn Stream>>,
    lost: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = this.stream.as_mut().poll_read(cx, buf);
        let ended = match &read {
            Poll::Ready(Ok(())) => room > 0 && buf.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            this.lost.store(true, Ordering::Release);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().stream.as_mut().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
