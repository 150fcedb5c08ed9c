//! A network namespace made ahead of the pod that will have it: the kernel takes longer for one than for
//! most else of a pod. It is held as a descriptor, so that it needs no record: it goes with the daemon.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sys::netns::Unpinned;
use tokio::{task::spawn_blocking, time::Instant};

/// How long one waits for a pod. The kernel gives a namespace the host's IPv4 settings of when it is made:
/// no pod is to have those of long ago, and a node where no pods are made is to hold nothing.
const FRESH: Duration = Duration::from_secs(10);

/// None, or one.
#[derive(Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Option<Held>>>);

struct Held {
    namespace: Unpinned,
    since: Instant,
}

impl Spare {
    /// The one that there is, if it is fresh: with `lo` up, and the sysctls that all pods have.
    pub(crate) fn take(&self) -> Option<Unpinned> {
        let held = self.held().take()?;
        (held.since.elapsed() < FRESH).then_some(held.namespace)
    }

    /// Makes one beside whatever is done now, unless one waits, and lets go of it when it has waited for
    /// too long. One that cannot be made is no loss: the pod that makes its own says what is wrong.
    pub(crate) fn renew(&self) {
        if self.held().is_some() {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            match spawn_blocking(make).await {
                Ok(Ok(namespace)) => this.keep(namespace).await,
                Ok(Err(error)) => tracing::debug!(%error, "no network namespace can be made ahead"),
                Err(failed) => std::panic::resume_unwind(failed.into_panic()),
            }
        });
    }

    async fn keep(&self, namespace: Unpinned) {
        let since = Instant::now();
        *self.held() = Some(Held { namespace, since });
        tokio::time::sleep(FRESH).await;
        // Another may have come in its place.
        let stale = self.held().take_if(|held| held.since == since);
        drop(stale);
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make() -> std::io::Result<Unpinned> {
    let sysctls = oci::default_sysctls(false);
    let sysctls: Vec<_> = sysctls.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    Unpinned::make(&sysctls)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that waits; none where none can be made.
    async fn spare() -> Option<Spare> {
        if let Err(error) = make() {
            eprintln!("skipped: network namespaces cannot be made here: {error}");
            return None;
        }
        let spare = Spare::default();
        spare.renew();
        while spare.held().is_none() {
            tokio::task::yield_now().await;
        }
        Some(spare)
    }

    #[tokio::test]
    async fn what_was_made_ahead_is_had_once() {
        let Some(spare) = spare().await else { return };
        assert!(spare.take().is_some());
        assert!(spare.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gets_what_has_waited_for_too_long() {
        let Some(spare) = spare().await else { return };
        tokio::time::advance(FRESH).await;
        assert!(spare.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_is_let_go_of_and_a_newer_one_is_not() {
        let Some(spare) = spare().await else { return };
        let half = FRESH / 2;
        tokio::time::sleep(half).await;
        let first = spare.take().expect("it is fresh");
        spare.renew();
        while spare.held().is_none() {
            tokio::task::yield_now().await;
        }
        drop(first);
        tokio::time::sleep(FRESH - Duration::from_millis(1)).await;
        assert!(spare.held().is_some(), "it went with the one before it");
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(spare.held().is_none(), "it is held for ever");
    }
}
