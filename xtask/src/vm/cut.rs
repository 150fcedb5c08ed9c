//! Power cuts: when they come. The seconds between the job's word and the cut are drawn from a seed that
//! is printed, so that a run can be had again, as far as a machine's own timing lets it.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What a job says when there is something to lose.
const WORD: &[u8] = b"the work begins";

/// The longest time from that to the cut, in milliseconds.
const LONGEST: u64 = 15_000;

pub(super) struct Cuts(u64);

impl Cuts {
    /// By `PODBAY_VM_SEED`, else by the clock.
    pub(super) fn new() -> Result<Self, String> {
        let seed = match env::var("PODBAY_VM_SEED") {
            Ok(text) => text.parse().map_err(|_| format!("PODBAY_VM_SEED is {text:?}, no number")),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(now.as_secs() ^ u64::from(now.subsec_nanos()))
            }
        }?;
        eprintln!("vm: the cuts are those of PODBAY_VM_SEED={seed}");
        Ok(Self(seed))
    }

    /// How long after the job's word the next one comes.
    pub(super) fn next(&mut self) -> Duration {
        Duration::from_millis(self.draw() % (LONGEST + 1))
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Listens for the job's word in what comes in pieces.
#[derive(Default)]
pub(super) struct Listener {
    last: Vec<u8>,
}

impl Listener {
    pub(super) fn hears(&mut self, piece: &[u8]) -> bool {
        self.last.extend_from_slice(piece);
        let heard = self.last.windows(WORD.len()).any(|window| window == WORD);
        let keep = if heard { 0 } else { WORD.len() - 1 };
        self.last.drain(..self.last.len().saturating_sub(keep));
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_cuts_and_none_is_late() {
        let draw = |seed| {
            let mut cuts = Cuts(seed);
            (0..100).map(|_| cuts.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|cut| *cut <= Duration::from_millis(LONGEST)));
    }

    #[test]
    fn the_word_is_heard_however_it_is_cut_and_once() {
        let mut listener = Listener::default();
        let pieces = ["cuts: the wo", "rk beg", "ins\n", "and goes on"];
        assert_eq!(
            pieces.map(|piece| listener.hears(piece.as_bytes())),
            [false, false, true, false]
        );
    }
}
