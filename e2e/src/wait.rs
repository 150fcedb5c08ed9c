//! Waiting for something to become so, for a bounded time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const STEP: Duration = Duration::from_millis(10);

/// How long things may take that should be so at once, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// What `look` sees, as soon as it sees something. None if that is not in time.
pub(crate) async fn seen_within<T>(
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        let seen = look().await;
        if seen.is_some() || Instant::now() >= deadline {
            return seen;
        }
        sleep(STEP).await;
    }
}

/// What `look` sees, as soon as it sees something.
///
/// # Panics
/// It does not in time; `what` was awaited.
pub async fn eventually_within<T>(
    within: Duration,
    what: &str,
    look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let seen = seen_within(within, look).await;
    seen.unwrap_or_else(|| panic!("it did not become so within {within:?}: {what}"))
}

/// As [`eventually_within`], soon.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(SOON, what, look).await
}

/// Something to see if it is so.
pub fn is_true(so: bool) -> Option<()> {
    so.then_some(())
}
