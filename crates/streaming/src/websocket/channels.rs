//! Channels in a WebSocket: a message is a channel's number and what is said on it.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::frames::{Broken, Frames, Kind, MESSAGE, Piece};
use crate::{
    agree::Coding,
    wire::{Ended, Event, Fault, Lane, Wire},
};

/// What is received at most and not consumed, on all channels.
const HELD: usize = 256 << 10;

/// What a client closes a channel with, in place of a number.
const CLOSE: u8 = 255;

/// Whether the client may send on a channel. What it sends on others is dropped, and so is what it
/// sends on channels that there are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Sends,
    Listens,
}

#[derive(Debug)]
pub(crate) struct Channels {
    frames: Frames,
    coding: Coding,
    access: Vec<Access>,
    message: Message,
    decoder: Decoder,
    held: usize,
}

/// What the message in hand is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// Its first byte is to come.
    Begins,
    To(Lane),
    /// To close the channel, if that is said in one byte.
    Close(Option<u8>),
    Nothing,
}

impl Channels {
    pub(crate) fn new(coding: Coding, access: Vec<Access>) -> Self {
        let (frames, message, decoder) = (Frames::default(), Message::Begins, Decoder::default());
        Self { frames, coding, access, message, decoder, held: 0 }
    }

    /// Says something first of all. It has to be short.
    pub(crate) fn greeting(mut self, lane: Lane, words: &[u8]) -> Self {
        self.say(lane, words);
        self
    }

    fn say(&mut self, lane: Lane, bytes: &[u8]) {
        let number = u8::try_from(lane).unwrap_or(CLOSE);
        if self.coding.base64 {
            let text = STANDARD.encode(bytes);
            self.frames.send(Kind::Text, &[number.saturating_add(b'0')], text.as_bytes());
        } else {
            self.frames.send(Kind::Binary, &[number], bytes);
        }
    }

    /// What a piece of a message comes to, if it comes to something.
    fn take(&mut self, piece: &Piece) -> Result<Option<Event>, Broken> {
        let mut bytes = piece.bytes.as_slice();
        if piece.first {
            (self.message, self.decoder) = (Message::Begins, Decoder::default());
        }
        if let (Message::Begins, Some((first, rest))) = (self.message, bytes.split_first()) {
            self.message = self.about(*first);
            bytes = rest;
        }
        match self.message {
            Message::Begins | Message::Nothing => Ok(None),
            Message::Close(channel) => self.close(channel, bytes, piece.last),
            Message::To(lane) => {
                let bytes = if self.coding.base64 {
                    self.decoder.take(bytes, piece.last)?
                } else {
                    bytes.to_vec()
                };
                self.held += bytes.len();
                Ok((!bytes.is_empty()).then_some(Event::Data { lane, bytes, fin: false }))
            }
        }
    }

    fn about(&self, first: u8) -> Message {
        if self.coding.closes && first == CLOSE {
            return Message::Close(None);
        }
        let number = if self.coding.base64 { first.wrapping_sub(b'0') } else { first };
        match self.access.get(usize::from(number)) {
            Some(Access::Sends) => Message::To(number.into()),
            Some(Access::Listens) | None => Message::Nothing,
        }
    }

    fn close(
        &mut self,
        mut channel: Option<u8>,
        bytes: &[u8],
        last: bool,
    ) -> Result<Option<Event>, Broken> {
        for byte in bytes {
            if channel.replace(*byte).is_some() {
                return Err(Broken::protocol("one channel is closed at a time"));
            }
        }
        self.message = Message::Close(channel);
        if !last {
            return Ok(None);
        }
        let channel = channel.filter(|channel| usize::from(*channel) < self.access.len());
        let Some(channel) = channel else {
            return Err(Broken::protocol("a channel is closed that there is not"));
        };
        Ok(self.shut(channel.into()).then(|| Event::Data {
            lane: channel.into(),
            bytes: Vec::new(),
            fin: true,
        }))
    }

    /// Nothing more is taken on the channel. Says whether something was, before.
    fn shut(&mut self, lane: Lane) -> bool {
        let access = usize::try_from(lane).ok().and_then(|at| self.access.get_mut(at));
        if self.message == Message::To(lane) {
            self.message = Message::Nothing;
        }
        access.is_some_and(|access| std::mem::replace(access, Access::Listens) == Access::Sends)
    }

    fn next(&mut self) -> Result<Option<Event>, Broken> {
        while self.held < HELD {
            let Some(piece) = self.frames.next_piece()? else {
                return Ok(self.frames.is_closing().then_some(Event::Closed));
            };
            if let Some(event) = self.take(&piece)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

impl Wire for Channels {
    fn wants_input(&self) -> bool {
        self.held < HELD && self.frames.wants_input()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.frames.receive(bytes);
    }

    fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        self.next().map_err(|broken| {
            self.frames.cut_off(broken);
            broken.into()
        })
    }

    fn output(&mut self) -> &[u8] {
        self.frames.output()
    }

    fn written(&mut self, n: usize) {
        self.frames.written(n);
    }

    fn accept(&mut self, _lane: Lane) {}

    fn send(&mut self, lane: Lane, bytes: &[u8], _fin: bool) -> Result<usize, Ended> {
        if self.frames.room() < MESSAGE || bytes.is_empty() {
            return Ok(0);
        }
        let most = if self.coding.base64 { (MESSAGE - 1) / 4 * 3 } else { MESSAGE - 1 };
        let sent = bytes.len().min(most);
        self.say(lane, &bytes[..sent]);
        Ok(sent)
    }

    fn consumed(&mut self, _lane: Lane, n: usize) {
        self.held = self.held.saturating_sub(n);
    }

    fn reset(&mut self, lane: Lane) {
        self.shut(lane);
    }

    fn farewell(&mut self) {
        self.frames.end();
    }

    fn held(&self) -> usize {
        self.held + self.frames.held()
    }
}

/// Base64 that comes in pieces. Four characters are three bytes.
#[derive(Clone, Debug, Default)]
struct Decoder {
    rest: Vec<u8>,
    /// The padding was read, after which nothing comes.
    ended: bool,
}

impl Decoder {
    fn take(&mut self, bytes: &[u8], last: bool) -> Result<Vec<u8>, Broken> {
        const WRONG: Broken = Broken::content("a message is not the base64 that was agreed on");
        if self.ended && !bytes.is_empty() {
            return Err(WRONG);
        }
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() / 4 * 4;
        let decoded = STANDARD.decode(&self.rest[..whole]).map_err(|_| WRONG)?;
        self.ended |= self.rest[..whole].ends_with(b"=");
        self.rest.drain(..whole);
        let is_wrong = (self.ended || last) && !self.rest.is_empty();
        if is_wrong { Err(WRONG) } else { Ok(decoded) }
    }
}

#[cfg(test)]
mod tests;
