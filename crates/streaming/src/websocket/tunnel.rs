//! Another wire within the messages of a WebSocket: their bytes are its bytes, and where a message ends
//! says nothing.

use super::frames::{Broken, Frames, Kind};
use crate::wire::{Ended, Event, Fault, Lane, Wire};

pub(crate) struct Tunnel<W> {
    frames: Frames,
    inner: W,
    /// Once the inner wire has nothing more to write, neither has this.
    ending: bool,
}

impl<W: Wire> Tunnel<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { frames: Frames::default(), inner, ending: false }
    }

    /// Puts into messages what the inner wire has to write, as far as there is room.
    fn wrap(&mut self) {
        loop {
            let bytes = self.inner.output();
            let n = bytes.len().min(self.frames.room());
            if bytes.is_empty() && self.ending {
                return self.frames.end();
            }
            if n == 0 {
                return;
            }
            self.frames.send(Kind::Binary, &[], &bytes[..n]);
            self.inner.written(n);
        }
    }

    /// Gives the inner wire what there is of a message; says whether there was something.
    fn unwrap(&mut self) -> Result<bool, Broken> {
        if !self.inner.wants_input() {
            return Ok(false);
        }
        let Some(piece) = self.frames.next_piece()? else { return Ok(false) };
        if piece.kind != Kind::Binary {
            return Err(Broken::kind("SPDY is tunnelled in binary messages"));
        }
        self.inner.receive(&piece.bytes);
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            let event = self.inner.next_event();
            self.wrap();
            if let Some(event) = event? {
                return Ok(Some(event));
            }
            if !self.unwrap()? {
                return Ok(self.frames.is_closing().then_some(Event::Closed));
            }
        }
    }
}

impl<W: Wire> Wire for Tunnel<W> {
    fn wants_input(&self) -> bool {
        self.frames.wants_input() && self.inner.wants_input()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.frames.receive(bytes);
    }

    fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        self.next().inspect_err(|fault| match fault {
            Fault::WebSocket(broken) => self.frames.cut_off(*broken),
            Fault::Spdy(_) | Fault::Tls(_) => self.ending = true,
        })
    }

    fn output(&mut self) -> &[u8] {
        self.wrap();
        self.frames.output()
    }

    fn written(&mut self, n: usize) {
        self.frames.written(n);
    }

    fn accept(&mut self, lane: Lane) {
        self.inner.accept(lane);
    }

    fn send(&mut self, lane: Lane, bytes: &[u8], fin: bool) -> Result<usize, Ended> {
        self.inner.send(lane, bytes, fin)
    }

    fn consumed(&mut self, lane: Lane, n: usize) {
        self.inner.consumed(lane, n);
    }

    fn reset(&mut self, lane: Lane) {
        self.inner.reset(lane);
    }

    fn farewell(&mut self) {
        self.inner.farewell();
        self.ending = true;
    }

    fn held(&self) -> usize {
        self.inner.held() + self.frames.held()
    }
}
