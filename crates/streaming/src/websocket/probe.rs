//! Reads what a client might send, for those who make it up: fuzzers and tests. The server has no use
//! for it.

use super::{Access, Channels};
use crate::{
    Size,
    agree::Coding,
    sizes::Sizes,
    wire::{Event, Lane, Wire as _},
};

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// On stdin, and on the channel for sizes.
    pub said: [Vec<u8>; 2],
    /// Whether stdin was closed.
    pub ended: bool,
    /// Whether the client said goodbye.
    pub goodbye: bool,
    /// What it was answered.
    pub answers: Vec<u8>,
}

/// Reads bytes that come in these pieces from a client that has a command. What it says is taken at
/// once, and so are the answers by it.
pub fn hear(base64: bool, closes: bool, pieces: &[&[u8]]) -> Result<Heard, String> {
    let sends = |channel| if matches!(channel, 0 | 4) { Access::Sends } else { Access::Listens };
    let access = (0..5).map(sends).collect();
    let mut channels = Channels::new(Coding { base64, closes }, access);
    let mut heard = Heard::default();
    for piece in pieces {
        channels.receive(piece);
        while let Some(event) = channels.next_event().map_err(|fault| fault.to_string())? {
            match event {
                Event::Data { lane, bytes, fin } => {
                    channels.consumed(lane, bytes.len());
                    heard.hear(lane, &bytes, fin);
                }
                Event::Closed => {
                    heard.goodbye = true;
                    break;
                }
                Event::Opened(_) | Event::Reset(_) | Event::Leaving => {}
            }
        }
        let answers = channels.output().to_vec();
        channels.written(answers.len());
        heard.answers.extend(answers);
    }
    Ok(heard)
}

/// The last size of a terminal in what a client says of it; none if there is one that is not a size.
pub fn last_size(pieces: &[&[u8]]) -> Option<Option<Size>> {
    let mut sizes = Sizes::default();
    let mut last = None;
    for piece in pieces {
        last = sizes.take(piece).ok()?.or(last);
    }
    Some(last)
}

impl Heard {
    fn hear(&mut self, lane: Lane, bytes: &[u8], fin: bool) {
        self.said[usize::from(lane != 0)].extend(bytes);
        self.ended |= fin && lane == 0;
    }
}
