//! One connection: what the caller does with it. What the peer does is in `connection`.

use crate::{
    Connection, StreamId,
    error::{Reason, Refused, Status},
    headers::Headers,
    stream::{Stream, Windows},
};

impl Connection {
    /// What is to be written to the peer.
    pub fn output(&self) -> &[u8] {
        self.out.pending()
    }

    /// The first n bytes of it have been written.
    pub fn written(&mut self, n: usize) {
        self.out.written(n);
    }

    /// Opens a stream. Nothing can be sent on it before the peer has replied.
    pub fn open(&mut self, headers: &Headers, fin: bool) -> Result<StreamId, Refused> {
        if self.leaving || self.left || self.next > StreamId::MAX {
            return Err(Refused::Leaving);
        }
        self.check(headers)?;
        let id = self.next;
        self.next.0 += 2;
        self.out.syn_stream(id, fin, headers);
        self.add(id, |stream| stream.sends = !fin);
        Ok(id)
    }

    /// Takes the stream that the peer opened. It waits for that: what is sent before, moby/spdystream
    /// drops.
    pub fn reply(&mut self, stream: StreamId, headers: &Headers) -> Result<(), Refused> {
        self.check(headers)?;
        let is_ours = self.is_ours(stream.0);
        let known = self.streams.get_mut(&stream).ok_or(Refused::Closed(stream))?;
        if known.answered || is_ours {
            return Err(Refused::Answered(stream));
        }
        known.answered = true;
        self.out.syn_reply(stream, headers);
        Ok(())
    }

    /// How much could be sent on a stream now. It can change with every event and with everything
    /// that is written.
    pub fn room(&self, stream: StreamId) -> usize {
        self.sender(stream).map_or(0, |stream| self.room_of(stream))
    }

    /// Sends as much of the bytes as there is room for, and tells how much that was. With `fin` they
    /// are the last, if all of them were sent.
    pub fn data(&mut self, stream: StreamId, bytes: &[u8], fin: bool) -> Result<usize, Refused> {
        let sent = self.room_of(self.sender(stream)?).min(bytes.len());
        let fin = fin && sent == bytes.len();
        if sent == 0 && !fin {
            return Ok(0);
        }
        self.out.data(stream, &bytes[..sent], fin);
        if let Some(known) = self.streams.get_mut(&stream) {
            known.sends = !fin;
            for windows in [&mut known.windows, &mut self.windows].into_iter().flatten() {
                // It only gets less, and so not too much.
                let _ = windows.credit_by(-i64::try_from(sent).unwrap_or(i64::MAX));
            }
        }
        self.settle(stream);
        Ok(sent)
    }

    /// The caller is through with this many bytes of what it was handed.
    pub fn consumed(&mut self, stream: StreamId, n: usize) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let (n, before) = (n.min(known.held), known.cost());
        known.take_back(n);
        self.held -= before - known.cost();
        let windows = known.windows.as_mut().filter(|_| known.receives);
        if let Some(delta) = windows.and_then(|windows| windows.consume(n)) {
            self.out.window_update(stream, delta);
        }
        self.free(n);
        self.settle(stream);
    }

    /// Ends a stream in both directions, at once. Content with one that is closed.
    pub fn reset(&mut self, stream: StreamId, status: Status) {
        if self.forget(stream).is_some_and(|known| known.sends || known.receives) {
            self.out.reset(stream, status);
        }
    }

    /// Has the peer open no more streams. It should be the last thing that is sent: moby/spdystream
    /// reads nothing after it.
    pub fn go_away(&mut self, reason: Reason) {
        if !self.leaving {
            self.leaving = true;
            self.out.go_away(self.last, reason);
        }
    }

    /// The streams that are open, or of which something is still held.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.keys().copied()
    }

    pub(crate) fn add(&mut self, id: StreamId, adapt: impl FnOnce(&mut Stream)) {
        let mut stream = Stream::new(self.windows.map(|_| self.initial));
        adapt(&mut stream);
        self.streams.insert(id, stream);
    }

    /// The stream is no more. What the caller has of it does not count any longer.
    pub(crate) fn forget(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.held -= stream.cost();
        self.free(stream.held);
        Some(stream)
    }

    /// The peer may send this many bytes more, on whatever stream.
    pub(crate) fn free(&mut self, bytes: usize) {
        if let Some(delta) = self.windows.as_mut().and_then(|windows| windows.consume(bytes)) {
            self.out.window_update(StreamId(0), delta);
        }
    }

    pub(crate) fn settle(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.streams.remove(&id);
        }
    }

    fn sender(&self, stream: StreamId) -> Result<&Stream, Refused> {
        let known = self.streams.get(&stream).ok_or(Refused::Closed(stream))?;
        match known {
            Stream { sends: false, .. } => Err(Refused::Ended(stream)),
            Stream { answered: false, .. } => Err(Refused::Unanswered(stream)),
            _ => Ok(known),
        }
    }

    fn room_of(&self, stream: &Stream) -> usize {
        let windows = [&stream.windows, &self.windows].into_iter().flatten();
        let room = self.limits.output.saturating_sub(self.out.pending().len());
        windows.map(Windows::credit).fold(room, usize::min)
    }

    fn check(&self, headers: &Headers) -> Result<(), Refused> {
        let (length, limit) = (headers.block().len(), self.limits.headers);
        if length > limit { Err(Refused::TooLarge { length, limit }) } else { Ok(()) }
    }
}
