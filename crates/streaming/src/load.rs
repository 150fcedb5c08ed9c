//! How much the server holds for its clients, to be seen by whoever asks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// What clients have open, and what is held for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections, whether they have shown a token or not.
    pub connections: usize,
    /// Bytes that were received and that nobody took yet, or that are to be sent.
    pub queued: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Total {
    connections: AtomicUsize,
    queued: AtomicUsize,
}

/// What one connection has of it; none of it once this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    total: Arc<Total>,
    queued: usize,
}

impl Total {
    pub(crate) fn load(&self) -> Load {
        Load { connections: self.connections.load(Relaxed), queued: self.queued.load(Relaxed) }
    }
}

impl Share {
    pub(crate) fn new(total: Arc<Total>) -> Self {
        total.connections.fetch_add(1, Relaxed);
        Self { total, queued: 0 }
    }

    pub(crate) fn set(&mut self, queued: usize) {
        // The counter wraps around, and so less of it is more.
        self.total.queued.fetch_add(queued.wrapping_sub(self.queued), Relaxed);
        self.queued = queued;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.total.connections.fetch_sub(1, Relaxed);
    }
}
