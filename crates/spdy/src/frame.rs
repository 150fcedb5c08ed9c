//! Frames as they are on the wire. What they mean to a connection is not known here.

use crate::{
    StreamId,
    error::{Fatal, Reason, Status},
};

pub(crate) const VERSION: u16 = 3;
/// The length of what every frame begins with.
pub(crate) const HEAD: usize = 8;

pub(crate) const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

const STREAM: u32 = 0x7fff_ffff;
const INITIAL_WINDOW: u32 = 7;

/// Of control frames.
pub(crate) mod kind {
    pub(crate) const SYN_STREAM: u16 = 1;
    pub(crate) const SYN_REPLY: u16 = 2;
    pub(crate) const RST_STREAM: u16 = 3;
    pub(crate) const SETTINGS: u16 = 4;
    pub(crate) const PING: u16 = 6;
    pub(crate) const GOAWAY: u16 = 7;
    pub(crate) const HEADERS: u16 = 8;
    pub(crate) const WINDOW_UPDATE: u16 = 9;
}

/// What every frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Data { stream: StreamId, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    /// `None` while it is not all there.
    pub(crate) fn read(input: &[u8]) -> Result<Option<Self>, Fatal> {
        let Some(&[a, b, c, d, flags, x, y, z]) = input.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        let stream = u32::from_be_bytes([a, b, c, d]);
        if stream > STREAM {
            let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
            let ours = Self::Control { kind, flags, length };
            return if version == VERSION { Ok(Some(ours)) } else { Err(Fatal::Version(version)) };
        }
        // Nobody sends other flags; text that is no SPDY at all has them.
        let fault = match (stream, flags) {
            (0, _) => "it is of stream 0",
            (_, 0 | FIN) => {
                let (stream, fin) = (StreamId(stream), flags == FIN);
                return Ok(Some(Self::Data { stream, fin, length }));
            }
            _ => "it has unknown flags",
        };
        Err(Fatal::Malformed { frame: "DATA", fault })
    }
}

/// A control frame. Header blocks are still compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    SynStream {
        stream: StreamId,
        fin: bool,
        unidirectional: bool,
        block: &'a [u8],
    },
    SynReply {
        stream: StreamId,
        fin: bool,
        block: &'a [u8],
    },
    Headers {
        stream: StreamId,
        fin: bool,
        block: &'a [u8],
    },
    Reset {
        stream: StreamId,
        status: Status,
    },
    Settings {
        window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: StreamId,
        reason: Reason,
    },
    WindowUpdate {
        stream: StreamId,
        delta: u32,
    },
    /// Of a kind that the specification does not know, and wants ignored.
    Unknown,
}

impl<'a> Frame<'a> {
    pub(crate) fn parse(kind: u16, flags: u8, body: &'a [u8]) -> Result<Self, Fatal> {
        let fin = flags & FIN != 0;
        let parsed = match kind {
            kind::SYN_STREAM => syn_stream(flags, body),
            kind::SYN_REPLY => {
                named(body).map(|(stream, block)| Self::SynReply { stream, fin, block })
            }
            kind::HEADERS => {
                named(body).map(|(stream, block)| Self::Headers { stream, fin, block })
            }
            kind::RST_STREAM => {
                about(body).map(|(stream, status)| Self::Reset { stream, status: Status(status) })
            }
            kind::SETTINGS => settings(body).map(|window| Self::Settings { window }),
            kind::PING => match words(body) {
                Some(([id], [])) => Some(Self::Ping { id }),
                _ => None,
            },
            kind::GOAWAY => {
                about(body).map(|(last, reason)| Self::GoAway { last, reason: Reason(reason) })
            }
            kind::WINDOW_UPDATE => {
                about(body).map(|(stream, delta)| Self::WindowUpdate { stream, delta })
            }
            _ => Some(Self::Unknown),
        };
        let fault = "its length is not right";
        parsed.ok_or_else(|| Fatal::Malformed { frame: name(kind), fault })
    }
}

fn syn_stream(flags: u8, body: &[u8]) -> Option<Frame<'_>> {
    // The stream that this one belongs to, its priority and a slot for credentials say nothing here.
    let (stream, rest) = named(body)?;
    let (_, block) = rest.split_at_checked(6)?;
    let (fin, unidirectional) = (flags & FIN != 0, flags & UNIDIRECTIONAL != 0);
    Some(Frame::SynStream { stream, fin, unidirectional, block })
}

/// A stream, and the rest.
fn named(body: &[u8]) -> Option<(StreamId, &[u8])> {
    words(body).map(|([stream], rest)| (StreamId(stream & STREAM), rest))
}

/// A stream and a number, and no rest.
fn about(body: &[u8]) -> Option<(StreamId, u32)> {
    match words(body) {
        Some(([stream, number], [])) => Some((StreamId(stream & STREAM), number)),
        _ => None,
    }
}

/// The one setting that matters here, if it is set.
fn settings(body: &[u8]) -> Option<Option<u32>> {
    let ([count], entries) = words(body)?;
    let (entries, surplus) = entries.as_chunks::<8>();
    if !surplus.is_empty() || entries.len() != count as usize {
        return None;
    }
    // Flags, a name of three bytes, a value.
    let value = |[_, a, b, c, w, x, y, z]: [u8; 8]| {
        let is_window = u32::from_be_bytes([0, a, b, c]) == INITIAL_WINDOW;
        is_window.then(|| u32::from_be_bytes([w, x, y, z]))
    };
    Some(entries.iter().rev().find_map(|entry| value(*entry)))
}

/// The first N numbers, and the rest.
fn words<const N: usize>(body: &[u8]) -> Option<([u32; N], &[u8])> {
    let (numbers, rest) = body.split_at_checked(N * 4)?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(numbers.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    Some((words, rest))
}

fn name(kind: u16) -> &'static str {
    match kind {
        kind::SYN_STREAM => "SYN_STREAM",
        kind::SYN_REPLY => "SYN_REPLY",
        kind::RST_STREAM => "RST_STREAM",
        kind::SETTINGS => "SETTINGS",
        kind::PING => "PING",
        kind::GOAWAY => "GOAWAY",
        kind::HEADERS => "HEADERS",
        kind::WINDOW_UPDATE => "WINDOW_UPDATE",
        _ => "control",
    }
}
