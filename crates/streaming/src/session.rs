//! One client that has upgraded: its lanes, as streams of bytes, and what moves them. What a lane is
//! for is not known here.
//!
//! Nothing is queued without end. The socket is not read while the wire holds all that it may, which
//! is until somebody takes it from a lane; and who sends on a lane waits until the socket takes it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, BytesMut};
use tokio::time::Instant;

use crate::{
    lane::{Listener, Speaker},
    load::Share,
    wire::{Event, Fault, Lane, Opened, Wire},
};

/// A handle to it.
#[derive(Clone)]
pub(crate) struct Session(Arc<Mutex<State>>);

/// A lane's state may be changed by whoever has one of its ends.
pub(crate) struct State {
    pub(crate) wire: Box<dyn Wire>,
    pub(crate) lanes: BTreeMap<Lane, Known>,
    /// What the client opened, and nobody has taken.
    opened: VecDeque<Opened>,
    /// Whether the client may open more.
    open: bool,
    taker: Option<Waker>,
    /// Who waits for room to send, in the order in which they came.
    waiting: VecDeque<(Lane, Waker)>,
    mover: Option<Waker>,
    /// When something last came or went.
    moved: Instant,
    load: Share,
}

#[derive(Default)]
pub(crate) struct Known {
    pub(crate) inbox: BytesMut,
    /// After the inbox, nothing follows.
    pub(crate) ended: bool,
    /// Nothing goes over it any more.
    pub(crate) reset: bool,
    /// Nobody will listen.
    pub(crate) deaf: bool,
    pub(crate) listener: Option<Waker>,
    /// How many of its two ends are kept by somebody.
    pub(crate) ends: u8,
}

impl Session {
    pub(crate) fn new(mut wire: Box<dyn Wire>, early: &[u8], load: Share) -> Self {
        wire.receive(early);
        Self(Arc::new(Mutex::new(State {
            wire,
            lanes: BTreeMap::new(),
            opened: VecDeque::new(),
            open: true,
            taker: None,
            waiting: VecDeque::new(),
            mover: None,
            moved: Instant::now(),
            load,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next lane that the client opens; none once it opens no more.
    pub(crate) async fn opened(&self) -> Option<Opened> {
        poll_fn(|cx| {
            let mut state = self.state();
            let next = state.opened.pop_front();
            if next.is_some() || !state.open {
                return Poll::Ready(next);
            }
            state.taker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Takes no more lanes.
    pub(crate) fn shut(&self) {
        let mut state = self.state();
        state.open = false;
        let opened = std::mem::take(&mut state.opened);
        for opened in opened {
            state.refuse(opened.lane);
        }
    }

    pub(crate) fn refuse(&self, lane: Lane) {
        self.state().refuse(lane);
    }

    /// Both ends of a lane. Once both are dropped, the lane ends, if it has not.
    pub(crate) fn accept(&self, lane: Lane) -> (Listener, Speaker) {
        let mut state = self.state();
        state.wire.accept(lane);
        state.lanes.entry(lane).or_default().ends = 2;
        state.wake_mover();
        (Listener::new(self.clone(), lane), Speaker::new(self.clone(), lane))
    }

    pub(crate) fn farewell(&self) {
        let mut state = self.state();
        state.wire.farewell();
        state.wake_mover();
    }

    pub(crate) fn moved(&self) -> Instant {
        self.state().moved
    }
}

impl State {
    pub(crate) fn wake_mover(&mut self) {
        if let Some(waker) = self.mover.take() {
            waker.wake();
        }
    }

    /// Whoever wants to send on the lane is woken when there is room.
    pub(crate) fn wait_for_room(&mut self, lane: Lane, cx: &Context<'_>) {
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == lane) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => self.waiting.push_back((lane, cx.waker().clone())),
        }
    }

    fn refuse(&mut self, lane: Lane) {
        self.wire.reset(lane);
        self.lanes.remove(&lane);
        self.wake_mover();
    }

    /// One end of the lane is kept no longer.
    pub(crate) fn drop_end(&mut self, lane: Lane) {
        let Some(known) = self.lanes.get_mut(&lane) else { return };
        known.ends -= 1;
        if known.ends == 0 {
            self.refuse(lane);
        }
    }

    /// Nobody listens to the lane any longer.
    pub(crate) fn deafen(&mut self, lane: Lane) {
        let Some(known) = self.lanes.get_mut(&lane) else { return };
        known.deaf = true;
        let held = std::mem::take(&mut known.inbox).len();
        self.wire.consumed(lane, held);
        self.wake_mover();
    }

    /// Takes at most so many bytes from the inbox of a lane.
    pub(crate) fn take(&mut self, lane: Lane, into: &mut tokio::io::ReadBuf<'_>) -> usize {
        let Some(known) = self.lanes.get_mut(&lane) else { return 0 };
        let n = known.inbox.len().min(into.remaining());
        into.put_slice(&known.inbox[..n]);
        known.inbox.advance(n);
        if known.inbox.is_empty() {
            // Else what was once needed at most would be kept for as long as the lane.
            known.inbox = BytesMut::new();
        }
        self.wire.consumed(lane, n);
        self.wake_mover();
        n
    }

    /// There may be room: for those who wait longest, first.
    pub(crate) fn wake_speakers(&mut self) {
        for (_, waker) in self.waiting.drain(..) {
            waker.wake();
        }
    }

    /// Notes who moves the session.
    pub(crate) fn begin_move(&mut self, cx: &Context<'_>) {
        self.mover = Some(cx.waker().clone());
    }

    pub(crate) fn end_move(&mut self) {
        let held = self.wire.held();
        self.load.set(held);
    }

    pub(crate) fn note_moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Gives to the lanes what has come for them. Says whether the client wants the end.
    pub(crate) fn deliver(&mut self) -> Result<bool, Fault> {
        while let Some(event) = self.wire.next_event()? {
            match event {
                Event::Opened(opened) if self.open => {
                    self.lanes.insert(opened.lane, Known::default());
                    self.opened.push_back(opened);
                    self.wake_taker();
                }
                Event::Opened(opened) => self.wire.reset(opened.lane),
                Event::Data { lane, bytes, fin } => self.hear(lane, &bytes, fin),
                Event::Reset(lane) => self.end(lane),
                Event::Leaving => {
                    self.open = false;
                    self.wake_taker();
                }
                Event::Closed => return Ok(true),
            }
        }
        Ok(false)
    }

    fn wake_taker(&mut self) {
        if let Some(waker) = self.taker.take() {
            waker.wake();
        }
    }

    fn hear(&mut self, lane: Lane, bytes: &[u8], fin: bool) {
        let Some(known) = self.lanes.get_mut(&lane) else {
            return self.wire.consumed(lane, bytes.len());
        };
        known.ended |= fin;
        if known.deaf {
            self.wire.consumed(lane, bytes.len());
        } else {
            known.inbox.extend_from_slice(bytes);
            known.listener.take().into_iter().for_each(Waker::wake);
        }
    }

    fn end(&mut self, lane: Lane) {
        let Some(known) = self.lanes.get_mut(&lane) else { return };
        if known.ends == 0 {
            // A client that opens and resets is not to fill the queue.
            self.lanes.remove(&lane);
            return self.opened.retain(|opened| opened.lane != lane);
        }
        known.reset = true;
        known.inbox = BytesMut::new();
        known.listener.take().into_iter().for_each(Waker::wake);
        let waiting = self.waiting.iter().filter(|(waiting, _)| *waiting == lane);
        waiting.for_each(|(_, waker)| waker.wake_by_ref());
    }
}
