//! Why a connection, a stream or a command came to nothing.

use std::fmt;

use crate::StreamId;

/// The peer does not speak SPDY/3.1, or not within the limits. The connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    #[error("the peer speaks SPDY version {0}, and 3 was agreed on")]
    Version(u16),

    #[error("a control frame of {length} bytes came; at most {limit} are taken")]
    TooLong { length: usize, limit: usize },

    #[error("a {frame} frame came that is malformed: {fault}")]
    Malformed { frame: &'static str, fault: &'static str },

    #[error("a header block came that cannot be read: {0}")]
    Headers(#[from] BadHeaders),

    #[error("the peer opened stream {0}, which is not for it to number")]
    NotTheirs(StreamId),

    #[error("the peer sent {0} bytes more than flow control lets it")]
    Overrun(i64),
}

/// What can be the matter with a header block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeaders {
    #[error("it is no continuation of a zlib stream with the dictionary of SPDY/3")]
    Zlib,
    #[error("it is larger than {0} bytes when inflated")]
    TooLarge(usize),
    #[error("it has {count} headers; at most {limit} are taken")]
    TooMany { count: u32, limit: u32 },
    #[error("it ends within a header")]
    CutShort,
    #[error("it goes on after its last header")]
    Surplus,
    #[error("the name {0:?} is not one: it is empty, has capitals or control characters")]
    Name(String),
    #[error("the name {0:?} is there twice")]
    Twice(String),
    #[error("it is not UTF-8")]
    NotText,
}

/// A command that cannot be carried out. Most often the peer was quicker and ended the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("stream {0} is closed")]
    Closed(StreamId),
    #[error("stream {0} has been ended from this side")]
    Ended(StreamId),
    #[error("stream {0} has no reply yet")]
    Unanswered(StreamId),
    #[error("stream {0} has a reply already, or it is not for this side to reply")]
    Answered(StreamId),
    #[error("the headers are {length} bytes; at most {limit} are sent")]
    TooLarge { length: usize, limit: usize },
    #[error("the connection is being closed, or has no more numbers for streams")]
    Leaving,
}

/// Why a stream was reset, as RST_STREAM says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(pub u32);

impl Status {
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INVALID_STREAM: Self = Self(2);
    pub const REFUSED_STREAM: Self = Self(3);
    pub const CANCEL: Self = Self(5);
    pub const INTERNAL_ERROR: Self = Self(6);
    pub const FLOW_CONTROL_ERROR: Self = Self(7);
    pub const STREAM_IN_USE: Self = Self(8);
    pub const STREAM_ALREADY_CLOSED: Self = Self(9);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Self::PROTOCOL_ERROR => "protocol error",
            Self::INVALID_STREAM => "no such stream",
            Self::REFUSED_STREAM => "refused",
            Self::CANCEL => "cancelled",
            Self::INTERNAL_ERROR => "internal error",
            Self::FLOW_CONTROL_ERROR => "flow control error",
            Self::STREAM_IN_USE => "stream in use",
            Self::STREAM_ALREADY_CLOSED => "stream already closed",
            Self(other) => return write!(f, "status {other}"),
        };
        f.write_str(words)
    }
}

/// Why a connection is closed, as GOAWAY says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason(pub u32);

impl Reason {
    pub const OK: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
}
