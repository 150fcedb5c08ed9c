//! SPDY/3.1 as Kubernetes clients speak it (client-go, crictl; all by way of moby/spdystream), for
//! `exec`, `attach` and `port-forward`. Either side of it: the server is what Podbay is, the client
//! is there for tests.
//!
//! There is no I/O here, and no waiting. Whoever has a socket gives a [`Connection`] the bytes that
//! it reads and takes [`Event`]s; it gives commands and takes the bytes to write.
//!
//! Nothing that a peer does makes a connection take more memory than its [`Limits`]: a frame is only
//! read when the caller asks for the next event, DATA is passed on as it comes and not frame by
//! frame, and when too much is under way the connection says that it wants no input. A peer that
//! breaks the rules gets a GOAWAY, and the caller a [`Fatal`].

mod command;
mod connection;
mod control;
mod dictionary;
mod error;
mod frame;
mod headers;
mod output;
mod stream;
mod zlib;

use std::fmt;

pub use connection::Connection;
pub use error::{BadHeaders, Fatal, Reason, Refused, Status};
pub use headers::Headers;

/// The number of a stream, unique on its connection. Those that the client opens are odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    pub(crate) const MAX: Self = Self(0x7fff_ffff);

    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Whether WINDOW_UPDATE counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowControl {
    /// By the specification: each side sends on a stream only what the other has said to have room
    /// for, 64 KiB at first.
    Honoured,
    /// moby/spdystream neither sends nor heeds WINDOW_UPDATE, and so no Kubernetes client does. To
    /// wait for one would be to wait for ever after 64 KiB, and to insist on windows would be to
    /// reset the streams of every client. What slows a peer down is that the socket is not read,
    /// which slows all of its streams.
    Ignored,
}

/// What a peer may make a connection hold. Whoever goes beyond is slowed down where the protocol has
/// a way to do that, refused a stream, or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams that are open at one time.
    pub streams: usize,
    /// Bytes of a control frame, and so of a header block while compressed. DATA frames may have any
    /// length, since they are never held whole.
    pub control: usize,
    /// Bytes of a header block when inflated; also of one that is sent.
    pub headers: usize,
    /// Names in a header block.
    pub names: u32,
    /// Bytes that were received and not consumed, in all; where that is more
    /// than `control`. Where flow control is
    /// honoured it is 64 KiB for one stream.
    pub held: usize,
    /// Bytes that are to be written, in all.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            control: 16 << 10,
            headers: 64 << 10,
            names: 100,
            held: 1 << 20,
            output: 256 << 10,
        }
    }
}

/// What the peer did. PING, SETTINGS and WINDOW_UPDATE are dealt with and not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It opened a stream, which is to be replied to or reset. With `fin` it will send nothing on it.
    Opened { stream: StreamId, headers: Headers, fin: bool },
    /// It replied to a stream opened from here.
    Answered { stream: StreamId, headers: Headers, fin: bool },
    /// It sent more headers.
    Headers { stream: StreamId, headers: Headers, fin: bool },
    /// It sent these bytes, of which the caller is to say when they are consumed. With `fin` they are
    /// its last.
    Data { stream: StreamId, bytes: Vec<u8>, fin: bool },
    /// It reset the stream, or broke its rules and so had it reset. Nothing more can be sent, and
    /// what was received need not be consumed.
    Reset { stream: StreamId, status: Status },
    /// It opens no more streams and takes none, but goes on with those that it has: of those opened
    /// from here, up to `last`.
    GoAway { last: Option<StreamId>, reason: Reason },
}
