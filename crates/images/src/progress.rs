//! How far a pull is, for people who watch it.

use names::Digest;

/// A pull, layer by layer, from the bottom up. Empty until the manifest is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub layers: Vec<Layer>,
}

/// One layer of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the blob, as a registry's pages show it.
    pub blob: Digest,
    /// Bytes to download, as the manifest says.
    pub total: u64,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    /// Bytes that have come and were unpacked, or are about to be.
    Coming(u64),
    /// It was here before.
    Present,
    Done,
}

impl Progress {
    /// Bytes that have come, and bytes that are to come in all; what was here counts as come.
    pub fn bytes(&self) -> (u64, u64) {
        let came = |layer: &Layer| match layer.state {
            State::Waiting => 0,
            State::Coming(bytes) => bytes.min(layer.total),
            State::Present | State::Done => layer.total,
        };
        let sum = |count: &dyn Fn(&Layer) -> u64| self.layers.iter().map(count).sum();
        (sum(&came), sum(&|layer| layer.total))
    }
}
