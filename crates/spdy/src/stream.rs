//! What a connection knows of one stream, and the counting of flow control.

/// What may be sent on a stream before its receiver says more, by the specification.
pub(crate) const WINDOW: u32 = 64 << 10;

/// What an event costs beyond its bytes, so that many small ones are not for free.
const PIECE: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// Whether its opener was given a reply.
    pub(crate) answered: bool,
    /// Whether this side may still send.
    pub(crate) sends: bool,
    /// Whether the peer may still send.
    pub(crate) receives: bool,
    /// Bytes that the caller was handed, and has not said to be through with.
    pub(crate) held: usize,
    /// In how many pieces, at most: since it last was through with all.
    pieces: usize,
    /// `None` where flow control is ignored.
    pub(crate) windows: Option<Windows>,
}

impl Stream {
    /// With what may be sent on it at first, if that counts.
    pub(crate) fn new(credit: Option<u32>) -> Self {
        let windows = credit.map(|credit| Windows::new(credit.into(), WINDOW));
        Self { answered: false, sends: true, receives: true, held: 0, pieces: 0, windows }
    }

    pub(crate) fn hand(&mut self, bytes: usize) {
        self.held += bytes;
        self.pieces += usize::from(bytes > 0);
    }

    pub(crate) fn take_back(&mut self, bytes: usize) {
        self.held -= bytes;
        if self.held == 0 {
            self.pieces = 0;
        }
    }

    /// The memory that is taken by what is held, about.
    pub(crate) fn cost(&self) -> usize {
        self.held.saturating_add(self.pieces.saturating_mul(PIECE))
    }

    /// Whether there is nothing to come, from either side or from the caller.
    pub(crate) fn is_over(&self) -> bool {
        !self.sends && !self.receives && self.held == 0
    }
}

/// What may be sent in each direction, of one stream or of all together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// From here to the peer. Below zero after a setting of the peer's that takes some back.
    credit: i64,
    /// From the peer.
    left: i64,
    /// Used up and free again, but not told to the peer yet.
    owed: u32,
    /// What the peer has at most.
    full: u32,
}

impl Windows {
    pub(crate) fn new(credit: i64, full: u32) -> Self {
        Self { credit, left: full.into(), owed: 0, full }
    }

    pub(crate) fn credit(&self) -> usize {
        usize::try_from(self.credit).unwrap_or(0)
    }

    /// The credit changes by this much, because data is sent or the peer says so. `None` if it gets
    /// larger than it may be.
    pub(crate) fn credit_by(&mut self, delta: i64) -> Option<()> {
        self.credit = self.credit.saturating_add(delta);
        (self.credit <= i64::from(i32::MAX)).then_some(())
    }

    /// By how much the peer sends too much, if it does.
    pub(crate) fn receive(&mut self, bytes: usize) -> Option<i64> {
        self.left = self.left.saturating_sub_unsigned(bytes as u64);
        (self.left < 0).then_some(-self.left)
    }

    /// What the peer is to be told, once it is worth a frame: half of what it may have.
    pub(crate) fn consume(&mut self, bytes: usize) -> Option<u32> {
        self.owed = self.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.owed < self.full / 2 {
            return None;
        }
        self.left += i64::from(self.owed);
        Some(std::mem::take(&mut self.owed))
    }
}
