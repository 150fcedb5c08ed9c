//! The two ends of a lane, to read from and to write to.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{session::Session, wire::Lane};

/// What the client sends. It may be dropped at any time; what comes then is dropped too.
pub(crate) struct Listener {
    session: Session,
    lane: Lane,
}

/// What the client is sent. Its end is said by shutting it down, and not by dropping it.
pub(crate) struct Speaker {
    session: Session,
    lane: Lane,
}

impl Listener {
    pub(crate) fn new(session: Session, lane: Lane) -> Self {
        Self { session, lane }
    }
}

impl Speaker {
    pub(crate) fn new(session: Session, lane: Lane) -> Self {
        Self { session, lane }
    }

    fn poll_send(&self, cx: &Context<'_>, bytes: &[u8], fin: bool) -> Poll<io::Result<usize>> {
        let mut state = self.session.state();
        let is_reset = state.lanes.get(&self.lane).is_none_or(|known| known.reset);
        if is_reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match state.wire.send(self.lane, bytes, fin) {
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Ok(0) if !bytes.is_empty() => {
                state.wait_for_room(self.lane, cx);
                Poll::Pending
            }
            Ok(sent) => {
                state.wake_mover();
                Poll::Ready(Ok(sent))
            }
        }
    }
}

impl AsyncRead for Listener {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.session.state();
        if state.take(self.lane, into) > 0 {
            return Poll::Ready(Ok(()));
        }
        match state.lanes.get_mut(&self.lane) {
            Some(known) if known.reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(known) if !known.ended => {
                known.listener = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Speaker {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() { Poll::Ready(Ok(0)) } else { self.poll_send(cx, bytes, false) }
    }

    /// The session sees to it that what is sent is written.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, &[], true))?;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.session.state();
        state.deafen(self.lane);
        state.drop_end(self.lane);
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.session.state().drop_end(self.lane);
    }
}
