//! One connection: what comes in. What goes out is in `command`.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::{Buf, BytesMut};

use crate::{
    Event, FlowControl, Limits, Role, StreamId,
    error::{Fatal, Reason, Status},
    frame::{Frame, HEAD, Head},
    output::Output,
    stream::{Stream, WINDOW, Windows},
    zlib::Inflater,
};

/// What may be waiting to be written above what the caller sends: answers to PING, resets.
const ANSWERS: usize = 4 << 10;

/// Go on with the next frame; or there is an event, or nothing can be done for now.
pub(crate) type Step = ControlFlow<Option<Event>>;

pub(crate) const GO_ON: Result<Step, Fatal> = Ok(Step::Continue(()));
const WAIT: Result<Step, Fatal> = Ok(Step::Break(None));

/// One end of a connection. The loop of whoever owns it:
///
/// - read from the socket while [`wants_input`](Self::wants_input), and give it to
///   [`receive`](Self::receive);
/// - take [`next_event`](Self::next_event) until there is none, whenever something was received,
///   consumed or written;
/// - write what is in [`output`](Self::output), and say so with [`written`](Self::written).
#[derive(Debug)]
pub struct Connection {
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    input: BytesMut,
    /// The DATA frame that the input is in the middle of.
    data: Option<Data>,
    pub(crate) inflater: Inflater,
    pub(crate) out: Output,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// The last stream that the peer opened.
    pub(crate) last: StreamId,
    /// The next stream to be opened from here.
    pub(crate) next: StreamId,
    /// What is held of all streams, as [`Stream::cost`] has it.
    pub(crate) held: usize,
    /// What all streams together may send. `None` where flow control is ignored.
    pub(crate) windows: Option<Windows>,
    /// What a new stream may send at first, by the peer's settings.
    pub(crate) initial: u32,
    /// A GOAWAY was sent.
    pub(crate) leaving: bool,
    /// A GOAWAY was received.
    pub(crate) left: bool,
    fatal: Option<Fatal>,
}

#[derive(Clone, Copy, Debug)]
struct Data {
    stream: StreamId,
    fin: bool,
    left: usize,
}

impl Connection {
    pub fn new(role: Role, flow: FlowControl, mut limits: Limits) -> Self {
        // Or a control frame could come to be waited for that there is no room for.
        limits.held = limits.held.max(limits.control.saturating_add(HEAD + 1));
        let mut connection = Self {
            role,
            limits,
            input: BytesMut::new(),
            data: None,
            inflater: Inflater::new(),
            out: Output::default(),
            streams: BTreeMap::new(),
            last: StreamId(0),
            next: StreamId(if role == Role::Client { 1 } else { 2 }),
            held: 0,
            windows: None,
            initial: WINDOW,
            leaving: false,
            left: false,
            fatal: None,
        };
        if flow == FlowControl::Honoured {
            connection.announce();
        }
        connection
    }

    /// All streams together may have what is held in all, so that one that is full stalls no other.
    fn announce(&mut self) {
        let most = i32::MAX.unsigned_abs();
        let all = u32::try_from(self.limits.held).unwrap_or(most).clamp(WINDOW, most);
        if all > WINDOW {
            self.out.window_update(StreamId(0), all - WINDOW);
        }
        self.windows = Some(Windows::new(WINDOW.into(), all));
    }

    /// Whether more is to be read from the peer. If not, it can change when something is consumed or
    /// written. Calling [`receive`](Self::receive) all the same is no error, only a waste of memory.
    pub fn wants_input(&self) -> bool {
        // Where flow control is honoured it bounds what is held, and the peer must be heard all the
        // same: it may be about to let this side send, and the caller to consume only then.
        let held = if self.windows.is_none() { self.held } else { 0 };
        let is_full = held.saturating_add(self.input.len()) >= self.limits.held;
        self.fatal.is_none() && !is_full && self.takes_answers()
    }

    /// Takes bytes from the peer, however they are cut. They are looked at by `next_event`.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.fatal.is_none() {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The next thing that the peer did, if it is all there. After an error there is only the error,
    /// and a GOAWAY to be written.
    pub fn next_event(&mut self) -> Result<Option<Event>, Fatal> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        while self.takes_answers() {
            match self.step() {
                Ok(Step::Continue(())) => {}
                Ok(Step::Break(event)) => return Ok(event),
                Err(fatal) => return Err(self.cut_off(fatal)),
            }
        }
        Ok(None)
    }

    /// A peer that does not read what it is sent gets no more answers, and so nothing of what it
    /// sends is looked at.
    fn takes_answers(&self) -> bool {
        self.out.pending().len() < self.limits.output.saturating_add(ANSWERS)
    }

    fn cut_off(&mut self, fatal: Fatal) -> Fatal {
        self.go_away(Reason::PROTOCOL_ERROR);
        self.streams.clear();
        self.input = BytesMut::new();
        self.fatal = Some(fatal.clone());
        fatal
    }

    fn step(&mut self) -> Result<Step, Fatal> {
        if let Some(data) = self.data {
            return self.piece(data);
        }
        match Head::read(&self.input)? {
            None => WAIT,
            Some(Head::Data { stream, fin, length }) => {
                self.input.advance(HEAD);
                self.data = Some(Data { stream, fin, left: length });
                match self.fault_of_sender(stream) {
                    Some(fault) => self.fail(stream, fault),
                    None => GO_ON,
                }
            }
            Some(Head::Control { length, .. }) if length > self.limits.control => {
                Err(Fatal::TooLong { length, limit: self.limits.control })
            }
            Some(Head::Control { length, .. }) if self.input.len() < HEAD + length => WAIT,
            Some(Head::Control { kind, flags, length }) => {
                let frame = self.input.split_to(HEAD + length);
                self.control(Frame::parse(kind, flags, &frame[HEAD..])?)
            }
        }
    }

    /// What there is of a DATA frame.
    fn piece(&mut self, data: Data) -> Result<Step, Fatal> {
        let here = data.left.min(self.input.len());
        let left = data.left - here;
        self.data = (left > 0).then_some(Data { left, ..data });
        if here == 0 && left > 0 {
            return WAIT;
        }
        let bytes = self.input.split_to(here);
        if let Some(excess) = self.windows.as_mut().and_then(|windows| windows.receive(here)) {
            return Err(Fatal::Overrun(excess));
        }
        let fin = data.fin && left == 0;
        let Some(stream) = self.streams.get_mut(&data.stream).filter(|stream| stream.receives)
        else {
            self.free(here);
            return GO_ON;
        };
        if stream.windows.as_mut().and_then(|windows| windows.receive(here)).is_some() {
            self.free(here);
            return self.fail(data.stream, Status::FLOW_CONTROL_ERROR);
        }
        let before = stream.cost();
        stream.hand(here);
        self.held += stream.cost() - before;
        self.ends(data.stream, fin);
        if bytes.is_empty() && !fin {
            return GO_ON;
        }
        // A copy, since a byte must not keep alive all that was read with it.
        happened(Event::Data { stream: data.stream, bytes: bytes.to_vec(), fin })
    }

    /// What is wrong with that the peer sends something on a stream, if it is. It may send for a
    /// while on one that was closed, until it hears of that.
    pub(crate) fn fault_of_sender(&self, id: StreamId) -> Option<Status> {
        match self.streams.get(&id) {
            Some(stream) if !stream.receives => Some(Status::STREAM_ALREADY_CLOSED),
            Some(stream) if self.is_ours(id.0) && !stream.answered => Some(Status::PROTOCOL_ERROR),
            None if !self.was_opened(id) => Some(Status::INVALID_STREAM),
            _ => None,
        }
    }

    /// Tells the peer that it broke a rule of a stream, and the caller if it knows that stream.
    pub(crate) fn fail(&mut self, stream: StreamId, status: Status) -> Result<Step, Fatal> {
        self.out.reset(stream, status);
        match self.forget(stream) {
            Some(_) => happened(Event::Reset { stream, status }),
            None => GO_ON,
        }
    }

    /// The peer's half is closed, if this was the last of it.
    pub(crate) fn ends(&mut self, id: StreamId, fin: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receives &= !fin;
        }
        self.settle(id);
    }

    /// Whether there ever was such a stream, as far as numbers tell.
    pub(crate) fn was_opened(&self, id: StreamId) -> bool {
        if self.is_ours(id.0) { id < self.next } else { id <= self.last }
    }

    /// Whether a number, of a stream or of a ping, is of those that this side gives.
    pub(crate) fn is_ours(&self, number: u32) -> bool {
        (number % 2 == 1) == (self.role == Role::Client)
    }
}

pub(crate) fn happened(event: Event) -> Result<Step, Fatal> {
    Ok(Step::Break(Some(event)))
}
