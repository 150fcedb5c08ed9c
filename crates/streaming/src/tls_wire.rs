//! Another wire within TLS, once the client has upgraded over it.

use std::io::{Read as _, Write as _};

use bytes::{Buf as _, BufMut as _, BytesMut};
use rustls::ServerConnection;

use crate::wire::{Ended, Event, Fault, Lane, Wire};

/// How much may be waiting to be written before the inner wire has to keep more, and before the client
/// has to read before it is read.
const OUTPUT: usize = 64 << 10;

pub(crate) struct Secret {
    tls: Box<ServerConnection>,
    inner: Box<dyn Wire>,
    /// What is to be written, encrypted.
    output: BytesMut,
    /// Once the inner wire has nothing more to write, neither has this.
    ending: bool,
    /// It was said that nothing follows.
    closed: bool,
    /// The client has said that nothing follows.
    left: bool,
    broken: Option<rustls::Error>,
}

impl Secret {
    /// Of what the client sent early, some may be out of TLS already.
    pub(crate) fn new(tls: Box<ServerConnection>, mut inner: Box<dyn Wire>, early: &[u8]) -> Self {
        inner.receive(early);
        let output = BytesMut::new();
        let (ending, closed, left, broken) = (false, false, false, None);
        let mut this = Self { tls, inner, output, ending, closed, left, broken };
        this.unwrap();
        this
    }

    /// Gives the inner wire what can be read by now.
    fn unwrap(&mut self) {
        match self.tls.process_new_packets() {
            Ok(state) => {
                self.left |= state.peer_has_closed();
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                if self.tls.reader().read_exact(&mut plain).is_ok() {
                    self.inner.receive(&plain);
                }
            }
            Err(error) => self.broken = Some(error),
        }
    }

    /// Encrypts what the inner wire has to write, as far as there is room.
    fn wrap(&mut self) {
        while self.output.len() < OUTPUT && !self.closed && self.broken.is_none() {
            let plain = self.inner.output();
            if plain.is_empty() {
                if self.ending {
                    self.tls.send_close_notify();
                    self.closed = true;
                }
                break;
            }
            let Ok(n @ 1..) = self.tls.writer().write(plain) else { break };
            self.inner.written(n);
            self.drain();
        }
        self.drain();
    }

    fn drain(&mut self) {
        let mut output = (&mut self.output).writer();
        while self.tls.wants_write() && self.tls.write_tls(&mut output).is_ok_and(|n| n > 0) {}
    }
}

impl Wire for Secret {
    fn wants_input(&self) -> bool {
        self.inner.wants_input() && self.output.len() < OUTPUT
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while self.broken.is_none() && self.tls.read_tls(&mut bytes).is_ok_and(|n| n > 0) {
            self.unwrap();
        }
        self.drain();
    }

    fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        let event = self.inner.next_event()?;
        match &self.broken {
            _ if event.is_some() => Ok(event),
            Some(error) => Err(Fault::Tls(error.clone())),
            None => Ok(self.left.then_some(Event::Closed)),
        }
    }

    fn output(&mut self) -> &[u8] {
        self.wrap();
        &self.output
    }

    fn written(&mut self, n: usize) {
        self.output.advance(n);
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
        self.inner.held() + self.output.len()
    }
}
