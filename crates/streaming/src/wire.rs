//! What a session needs of what it is carried by: several lanes both ways over one stream of bytes,
//! within limits, without I/O.

use crate::websocket::Broken;

/// One of the flows that a connection carries: a stream of SPDY, a channel of a WebSocket.
pub(crate) type Lane = u32;

/// What the client did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It opened a lane, which is to be accepted or reset.
    Opened(Opened),
    /// It sent bytes, of which it is to be said when they are consumed. After `fin` none follow.
    Data { lane: Lane, bytes: Vec<u8>, fin: bool },
    /// Nothing goes over the lane any more.
    Reset(Lane),
    /// It opens no more lanes.
    Leaving,
    /// It wants the end.
    Closed,
}

/// A lane that a client of SPDY opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lane: Lane,
    pub(crate) headers: spdy::Headers,
}

/// The client breaks the protocol. It has been told, in what is to be written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Spdy(#[from] spdy::Fatal),
    #[error(transparent)]
    WebSocket(#[from] Broken),
    #[error(transparent)]
    Tls(rustls::Error),
}

/// Nothing more can be sent on the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

pub(crate) trait Wire: Send {
    /// Whether more is to be read. If not, that changes when something is consumed or written.
    fn wants_input(&self) -> bool;

    fn receive(&mut self, bytes: &[u8]);

    fn next_event(&mut self) -> Result<Option<Event>, Fault>;

    /// What is to be written.
    fn output(&mut self) -> &[u8];

    /// The first n bytes of it have been.
    fn written(&mut self, n: usize);

    fn accept(&mut self, lane: Lane);

    /// Sends as much as there is room for, which may be nothing. With `fin` it is the last, if all of
    /// it was sent.
    fn send(&mut self, lane: Lane, bytes: &[u8], fin: bool) -> Result<usize, Ended>;

    fn consumed(&mut self, lane: Lane, n: usize);

    /// Ends the lane both ways, unless it has ended.
    fn reset(&mut self, lane: Lane);

    /// Says that the end is here.
    fn farewell(&mut self);

    /// How much is held: what was received and not consumed, and what is to be written.
    fn held(&self) -> usize;
}
