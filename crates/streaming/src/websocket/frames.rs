//! Frames of a WebSocket: messages in and out, in pieces, and the answers that the protocol wants. What
//! is in messages is not known here.

use bytes::{Buf as _, BufMut as _, BytesMut};

/// What a data message is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    /// Whether the message begins with it.
    pub(crate) first: bool,
    /// Whether the message ends with it.
    pub(crate) last: bool,
    pub(crate) bytes: Vec<u8>,
}

/// The client breaks the protocol, or what is said in it. It is told so, with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Broken {
    code: u16,
    why: &'static str,
}

impl Broken {
    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self { code: 1002, why }
    }

    pub(crate) const fn kind(why: &'static str) -> Self {
        Self { code: 1003, why }
    }

    pub(crate) const fn content(why: &'static str) -> Self {
        Self { code: 1007, why }
    }
}

/// What may be waiting to be written above what the caller sends: answers to pings.
const ANSWERS: usize = 4 << 10;

/// What is read at most before it is looked at.
const INPUT: usize = 64 << 10;

/// What is sent at most before it is written.
const OUTPUT: usize = 256 << 10;

/// The most that one message holds.
pub(crate) const MESSAGE: usize = 32 << 10;

/// The longest that control frames may be.
const CONTROL: u64 = 125;

const NORMAL: u16 = 1000;

/// The end of a connection that a client has upgraded.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    input: BytesMut,
    output: BytesMut,
    /// The frame that the input is in the middle of.
    frame: Option<Frame>,
    /// The message that the next frames go on with.
    message: Option<Kind>,
    /// We have said that nothing follows.
    closed: bool,
    /// The client has.
    closing: bool,
}

/// What is left of a frame of data.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    first: bool,
    fin: bool,
    left: u64,
    mask: [u8; 4],
}

/// What a frame begins with.
struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    /// Its own length.
    size: usize,
}

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

impl Frames {
    pub(crate) fn wants_input(&self) -> bool {
        self.input.len() < INPUT && self.takes_answers()
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The client wants the connection to end, and has had its answer.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// What there is of a message.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, Broken> {
        while !self.closing && self.takes_answers() {
            if let Some(frame) = self.frame {
                return Ok(self.piece(frame));
            }
            let Some(head) = head(&self.input)? else { return Ok(None) };
            if head.opcode < opcode::CLOSE {
                self.input.advance(head.size);
                self.begin(&head)?;
            } else if !self.control(&head)? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// A client that does not read the answers to its pings is not listened to.
    fn takes_answers(&self) -> bool {
        self.output.len() < OUTPUT + ANSWERS
    }

    fn begin(&mut self, head: &Head) -> Result<(), Broken> {
        let (first, kind) = match (head.opcode, self.message) {
            (opcode::CONTINUATION, Some(kind)) => (false, kind),
            (opcode::CONTINUATION, None) => {
                return Err(Broken::protocol("a frame goes on with no message"));
            }
            (opcode::TEXT, None) => (true, Kind::Text),
            (opcode::BINARY, None) => (true, Kind::Binary),
            (opcode::TEXT | opcode::BINARY, Some(_)) => {
                return Err(Broken::protocol("a message begins within another"));
            }
            _ => return Err(Broken::protocol("a frame is of an unknown kind")),
        };
        let Head { fin, length, mask, .. } = *head;
        self.message = (!fin).then_some(kind);
        self.frame = Some(Frame { kind, first, fin, left: length, mask });
        Ok(())
    }

    fn piece(&mut self, frame: Frame) -> Option<Piece> {
        let Frame { kind, first, fin, left, mut mask } = frame;
        let here =
            usize::try_from(left).map_or(self.input.len(), |left| left.min(self.input.len()));
        if here == 0 && left > 0 {
            return None;
        }
        let mut bytes = self.input.split_to(here).to_vec();
        unmask(&mut bytes, &mut mask);
        let left = left - here as u64;
        self.frame = (left > 0).then_some(Frame { first: false, left, mask, ..frame });
        Some(Piece { kind, first, last: fin && left == 0, bytes })
    }

    /// Answers a control frame; says whether it was all there.
    fn control(&mut self, head: &Head) -> Result<bool, Broken> {
        if !head.fin || head.length > CONTROL {
            return Err(Broken::protocol("a control frame is in parts, or too long"));
        }
        let whole = head.size + usize::try_from(head.length).unwrap_or(usize::MAX);
        if self.input.len() < whole {
            return Ok(false);
        }
        let mut frame = self.input.split_to(whole);
        frame.advance(head.size);
        unmask(&mut frame, &mut { head.mask });
        match head.opcode {
            opcode::PING => self.put(opcode::PONG, &[], &frame),
            opcode::PONG => {}
            opcode::CLOSE => self.answer_close(&frame)?,
            _ => return Err(Broken::protocol("a control frame is of an unknown kind")),
        }
        Ok(true)
    }

    fn answer_close(&mut self, said: &[u8]) -> Result<(), Broken> {
        let code = match said {
            [] => NORMAL,
            [a, b, ..] => u16::from_be_bytes([*a, *b]),
            [_] => return Err(Broken::protocol("half a number is the reason of the end")),
        };
        if !(1000..5000).contains(&code) || matches!(code, 1004..=1006 | 1015) {
            return Err(Broken::protocol("the reason of the end is not one that is sent"));
        }
        self.close(code);
        self.closing = true;
        self.input = BytesMut::new();
        Ok(())
    }

    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    pub(crate) fn written(&mut self, n: usize) {
        self.output.advance(n);
    }

    /// How long a message could be sent now.
    pub(crate) fn room(&self) -> usize {
        if self.closed { 0 } else { OUTPUT.saturating_sub(self.output.len()).min(MESSAGE) }
    }

    pub(crate) fn held(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// Sends a message. It is for the caller to see that there is room.
    pub(crate) fn send(&mut self, kind: Kind, head: &[u8], bytes: &[u8]) {
        let opcode = match kind {
            Kind::Text => opcode::TEXT,
            Kind::Binary => opcode::BINARY,
        };
        self.put(opcode, head, bytes);
    }

    pub(crate) fn end(&mut self) {
        self.close(NORMAL);
    }

    pub(crate) fn cut_off(&mut self, broken: Broken) {
        self.close(broken.code);
        self.closing = true;
        self.input = BytesMut::new();
    }

    fn close(&mut self, code: u16) {
        self.put(opcode::CLOSE, &[], &code.to_be_bytes());
        self.closed = true;
    }

    fn put(&mut self, opcode: u8, head: &[u8], bytes: &[u8]) {
        if self.closed {
            return;
        }
        self.output.put_u8(0x80 | opcode);
        let length = head.len() + bytes.len();
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..126), _) => self.output.put_u8(short),
            (_, Ok(long)) => {
                self.output.put_u8(126);
                self.output.put_u16(long);
            }
            _ => {
                self.output.put_u8(127);
                self.output.put_u64(length as u64);
            }
        }
        self.output.extend_from_slice(head);
        self.output.extend_from_slice(bytes);
    }
}

/// `None` while it is not all there.
fn head(input: &[u8]) -> Result<Option<Head>, Broken> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Broken::protocol("a frame uses an extension, and none was agreed on"));
    }
    if second & 0x80 == 0 {
        return Err(Broken::protocol("a frame of a client is to be masked"));
    }
    let (length, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    if length > i64::MAX.unsigned_abs() {
        return Err(Broken::protocol("a frame is longer than frames can be"));
    }
    let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let size = input.len() - rest.len();
    Ok(Some(Head { fin: first & 0x80 != 0, opcode: first & 0x0f, length, mask: *mask, size }))
}

/// Unmasks bytes, and turns the mask to where the next ones are.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let word = u32::from_ne_bytes(*mask);
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(*mask) {
        *byte ^= mask;
    }
    let over = rest.len();
    mask.rotate_left(over);
}

#[cfg(test)]
mod tests;
