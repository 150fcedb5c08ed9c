//! When to ask the same endpoint again, and how long to wait before.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use crate::{config::Config, fault::Fault};

/// A timeout has already cost much, so it is tried only once more.
const TRIES_IF_SLOW: u32 = 2;

/// Counts the tries of one request to one endpoint.
pub(crate) struct Patience<'a> {
    config: &'a Config,
    tried: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config, tried: 0 }
    }

    /// Returns when the request is to be sent again; gives the fault back when it is not.
    pub(crate) async fn wait(&mut self, fault: Fault) -> Result<(), Fault> {
        self.tried += 1;
        match self.pause(&fault) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(fault),
        }
    }

    fn pause(&self, fault: &Fault) -> Option<Duration> {
        let slow = matches!(fault, Fault::Slow { .. });
        let tries = if slow { self.config.tries.min(TRIES_IF_SLOW) } else { self.config.tries };
        if !fault.may_pass() || self.tried >= tries {
            return None;
        }
        match fault {
            // A registry that says when to come back is not to be asked before.
            Fault::Status { retry_after: Some(asked), .. } => (*asked <= self.config.longest_wait)
                .then(|| pause(self.config, self.tried).max(*asked)),
            _ => Some(pause(self.config, self.tried)),
        }
    }
}

/// Doubles with each failure (from 1), up to the longest wait; between half of that and all of it,
/// so that nodes that failed together do not come back together.
pub(crate) fn pause(config: &Config, failures: u32) -> Duration {
    let doubled = config.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let whole = doubled.min(config.longest_wait);
    let share = RandomState::new().hash_one(failures) % 1000;
    whole.mul_f64(0.5 + share as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn config() -> Config {
        let longest_wait = Duration::from_secs(4);
        Config { tries: 5, backoff: Duration::from_secs(1), longest_wait, ..Config::default() }
    }

    fn status(status: u16, retry_after: Option<u64>) -> Fault {
        Fault::Status {
            status: StatusCode::from_u16(status).unwrap(),
            said: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failures, whole) in [(1, 1), (2, 2), (3, 4), (4, 4), (90, 4)] {
            let pause = pause(&config(), failures);
            let whole = Duration::from_secs(whole);
            assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let config = config();
        let ask = |tried, fault: &Fault| Patience { config: &config, tried }.pause(fault);
        assert!(ask(1, &status(503, None)).is_some());
        assert!(ask(5, &status(503, None)).is_none());
        assert!(ask(1, &status(404, None)).is_none());
        assert!(ask(1, &Fault::Slow { what: "answer", after: Duration::ZERO }).is_some());
        assert!(ask(2, &Fault::Slow { what: "answer", after: Duration::ZERO }).is_none());
    }

    #[test]
    fn retry_after_is_kept_to_or_not_waited_for_at_all() {
        let config = config();
        let ask = |fault: &Fault| Patience { config: &config, tried: 1 }.pause(fault);
        assert_eq!(ask(&status(429, Some(3))), Some(Duration::from_secs(3)));
        assert_eq!(ask(&status(429, Some(3600))), None);
    }
}
