//! One connection: what control frames do to it.

use crate::{
    Connection, Event, StreamId,
    connection::{GO_ON, Step, happened},
    error::{Fatal, Status},
    frame::Frame,
    headers::Headers,
};

impl Connection {
    pub(crate) fn control(&mut self, frame: Frame<'_>) -> Result<Step, Fatal> {
        match frame {
            Frame::SynStream { stream, fin, unidirectional, block } => {
                let headers = self.headers(block)?;
                self.opened(stream, fin, unidirectional, headers)
            }
            Frame::SynReply { stream, fin, block } => {
                let headers = self.headers(block)?;
                self.answered(stream, fin, headers)
            }
            Frame::Headers { stream, fin, block } => {
                let headers = self.headers(block)?;
                self.more_headers(stream, fin, headers)
            }
            Frame::Reset { stream, status } => match self.forget(stream) {
                Some(_) => happened(Event::Reset { stream, status }),
                None => GO_ON,
            },
            Frame::Settings { window } => self.set(window),
            Frame::Ping { id } => {
                // One with our parity would answer a ping of ours, and we send none.
                if !self.is_ours(id) {
                    self.out.ping(id);
                }
                GO_ON
            }
            Frame::GoAway { last, reason } => {
                self.left = true;
                let last = Some(last).filter(|last| last.0 > 0);
                happened(Event::GoAway { last, reason })
            }
            Frame::WindowUpdate { stream, delta } => self.widen(stream, delta),
            Frame::Unknown => GO_ON,
        }
    }

    /// Every block has to be read, even of a stream that is refused: the next builds on it.
    fn headers(&mut self, block: &[u8]) -> Result<Headers, Fatal> {
        let plain = self.inflater.inflate(block, self.limits.headers)?;
        Ok(Headers::parse(&plain, self.limits.names)?)
    }

    fn opened(
        &mut self,
        id: StreamId,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<Step, Fatal> {
        if id.0 == 0 || self.is_ours(id.0) {
            return Err(Fatal::NotTheirs(id));
        }
        if id <= self.last {
            // Not the end of the connection, since clients with an old spdystream number streams
            // before they take turns to send them.
            return self.fail(id, Status::PROTOCOL_ERROR);
        }
        self.last = id;
        if self.leaving {
            return GO_ON;
        }
        if self.streams.len() >= self.limits.streams {
            return self.fail(id, Status::REFUSED_STREAM);
        }
        self.add(id, |stream| stream.sends = !unidirectional);
        self.ends(id, fin);
        happened(Event::Opened { stream: id, headers, fin })
    }

    fn answered(&mut self, id: StreamId, fin: bool, headers: Headers) -> Result<Step, Fatal> {
        let (is_ours, was_opened) = (self.is_ours(id.0), self.was_opened(id));
        match self.streams.get_mut(&id) {
            Some(stream) if is_ours && !stream.answered => {
                stream.answered = true;
                self.ends(id, fin);
                happened(Event::Answered { stream: id, headers, fin })
            }
            Some(_) => self.fail(id, Status::STREAM_IN_USE),
            None if was_opened => GO_ON,
            None => self.fail(id, Status::INVALID_STREAM),
        }
    }

    fn more_headers(&mut self, id: StreamId, fin: bool, headers: Headers) -> Result<Step, Fatal> {
        if let Some(fault) = self.fault_of_sender(id) {
            return self.fail(id, fault);
        }
        if !self.streams.contains_key(&id) {
            return GO_ON;
        }
        self.ends(id, fin);
        happened(Event::Headers { stream: id, headers, fin })
    }

    /// Streams that are open gain or lose the difference.
    fn set(&mut self, window: Option<u32>) -> Result<Step, Fatal> {
        let Some(window) = window else { return GO_ON };
        let delta = i64::from(window) - i64::from(self.initial);
        self.initial = window;
        let mut windows = self.streams.values_mut().filter_map(|stream| stream.windows.as_mut());
        let fits = windows.all(|windows| windows.credit_by(delta).is_some());
        if fits && window <= i32::MAX.unsigned_abs() {
            return GO_ON;
        }
        Err(Fatal::Malformed { frame: "SETTINGS", fault: "its window is too large" })
    }

    fn widen(&mut self, id: StreamId, delta: u32) -> Result<Step, Fatal> {
        let is_for_all = id.0 == 0;
        let windows = if is_for_all {
            self.windows.as_mut()
        } else {
            self.streams.get_mut(&id).and_then(|stream| stream.windows.as_mut())
        };
        let Some(windows) = windows else { return GO_ON };
        match windows.credit_by(delta.into()) {
            Some(()) => GO_ON,
            None if is_for_all => {
                Err(Fatal::Malformed { frame: "WINDOW_UPDATE", fault: "the window gets too large" })
            }
            None => self.fail(id, Status::FLOW_CONTROL_ERROR),
        }
    }
}
