//! One piece of work for a pod at a time. A caller that gives up waiting leaves work behind that no
//! one can stop; its undo must not overtake it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use names::PodId;
use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Held for as long as work for a pod goes on, also by the work itself.
pub type Turn = Arc<OwnedMutexGuard<()>>;

/// Who works on which pod.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<PodId, Lock>>);

impl Turns {
    /// Waits until nobody works on `pod`.
    pub async fn take(&self, pod: &PodId) -> Turn {
        let lock = self.lock_of(pod);
        Arc::new(lock.lock_owned().await)
    }

    fn lock_of(&self, pod: &PodId) -> Lock {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A lock that only the map holds is nobody's any more.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(pod.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_pod_is_worked_on_by_one_at_a_time_and_then_forgotten() {
        let turns = Turns::default();
        let (one, two) = (PodId::from_bytes([1; 32]), PodId::from_bytes([2; 32]));
        let first = turns.take(&one).await;
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, turns.take(&one)).await.is_err());
        let other = turns.take(&two).await;
        drop(Arc::clone(&first));
        assert!(tokio::time::timeout(soon, turns.take(&one)).await.is_err(), "the work holds it");
        drop(first);
        drop(turns.take(&one).await);
        drop(other);
        drop(turns.take(&two).await);
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }
}
