//! SPDY as a wire. The protocol itself is in the crate `spdy`.

use std::collections::BTreeMap;

use spdy::{Connection, FlowControl, Headers, Limits, Reason, Role, Status, StreamId};

use crate::wire::{Ended, Event, Fault, Lane, Opened, Wire};

/// What is not worth a frame of its own, while more is to be sent.
const PIECE: usize = 8 << 10;

pub(crate) struct Spdy {
    connection: Connection,
    lanes: BTreeMap<Lane, Open>,
    /// On all lanes.
    held: usize,
    /// What the last event of the connection says besides.
    next: Option<Event>,
}

struct Open {
    stream: StreamId,
    held: usize,
}

impl Spdy {
    /// With so many streams at one time.
    pub(crate) fn new(streams: usize) -> Self {
        let limits = Limits { streams, ..Limits::default() };
        let connection = Connection::new(Role::Server, FlowControl::Ignored, limits);
        Self { connection, lanes: BTreeMap::new(), held: 0, next: None }
    }

    /// What an event of the connection comes to, if it comes to something.
    fn told(&mut self, event: spdy::Event) -> Option<Event> {
        match event {
            spdy::Event::Opened { stream, headers, fin } => {
                let lane = stream.number();
                self.lanes.insert(lane, Open { stream, held: 0 });
                self.next = fin.then(|| end(stream));
                Some(Event::Opened(Opened { lane, headers }))
            }
            spdy::Event::Data { stream, bytes, fin } => {
                let lane = stream.number();
                if let Some(open) = self.lanes.get_mut(&lane) {
                    open.held += bytes.len();
                    self.held += bytes.len();
                }
                Some(Event::Data { lane, bytes, fin })
            }
            spdy::Event::Headers { stream, fin, .. }
            | spdy::Event::Answered { stream, fin, .. } => fin.then(|| end(stream)),
            spdy::Event::Reset { stream, .. } => {
                self.forget(stream.number());
                Some(Event::Reset(stream.number()))
            }
            spdy::Event::GoAway { .. } => Some(Event::Leaving),
        }
    }

    fn forget(&mut self, lane: Lane) -> Option<Open> {
        let open = self.lanes.remove(&lane)?;
        self.held -= open.held;
        Some(open)
    }
}

fn end(stream: StreamId) -> Event {
    Event::Data { lane: stream.number(), bytes: Vec::new(), fin: true }
}

impl Wire for Spdy {
    fn wants_input(&self) -> bool {
        self.connection.wants_input()
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.connection.receive(bytes);
    }

    fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        if let Some(event) = self.next.take() {
            return Ok(Some(event));
        }
        while let Some(event) = self.connection.next_event()? {
            if let Some(told) = self.told(event) {
                return Ok(Some(told));
            }
        }
        Ok(None)
    }

    fn output(&mut self) -> &[u8] {
        self.connection.output()
    }

    fn written(&mut self, n: usize) {
        self.connection.written(n);
    }

    fn accept(&mut self, lane: Lane) {
        if let Some(open) = self.lanes.get(&lane) {
            // It fails if the client was quicker and reset it, of which there is an event.
            let _ = self.connection.reply(open.stream, &Headers::new());
        }
    }

    fn send(&mut self, lane: Lane, bytes: &[u8], fin: bool) -> Result<usize, Ended> {
        let open = self.lanes.get(&lane).ok_or(Ended)?;
        let room = self.connection.room(open.stream);
        if room < bytes.len().min(PIECE) {
            return Ok(0);
        }
        self.connection.data(open.stream, bytes, fin).map_err(|_| Ended)
    }

    fn consumed(&mut self, lane: Lane, n: usize) {
        if let Some(open) = self.lanes.get_mut(&lane) {
            let n = n.min(open.held);
            open.held -= n;
            self.held -= n;
            self.connection.consumed(open.stream, n);
        }
    }

    fn reset(&mut self, lane: Lane) {
        if let Some(open) = self.forget(lane) {
            self.connection.reset(open.stream, Status::CANCEL);
        }
    }

    fn farewell(&mut self) {
        self.connection.go_away(Reason::OK);
    }

    fn held(&self) -> usize {
        self.held + self.connection.output().len()
    }
}
