//! Work that several want and that is done once. It ends early only when the last who wants it is
//! gone; then it is aborted, and what it leaves is its own guards' to clean.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{sync::watch, task::AbortHandle};

type Open<K, P, T> = Arc<Mutex<HashMap<K, (u64, Weak<Flight<K, P, T>>)>>>;

/// All the work of one kind that is under way, by key. `P` is how far it is, `T` what comes of it.
pub struct Flights<K: Eq + Hash, P, T> {
    open: Open<K, P, T>,
}

/// One piece of work, as long as somebody waits for it.
struct Flight<K: Eq + Hash, P, T> {
    key: K,
    number: u64,
    open: Open<K, P, T>,
    progress: watch::Receiver<P>,
    result: watch::Receiver<Option<T>>,
    task: Option<AbortHandle>,
}

/// A claim to the result; dropping the last one aborts the work.
pub struct Waiter<K: Eq + Hash, P, T> {
    flight: Arc<Flight<K, P, T>>,
    /// Whether the work was begun for this one.
    pub first: bool,
}

impl<K: Eq + Hash, P, T> Default for Flights<K, P, T> {
    fn default() -> Self {
        Flights { open: Arc::default() }
    }
}

impl<K, P, T> Flights<K, P, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    P: Default + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the work of this key, beginning it if nobody has.
    pub fn join<F>(&self, key: K, work: impl FnOnce(watch::Sender<P>) -> F) -> Waiter<K, P, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut open = lock(&self.open);
        if let Some(flight) = open.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return Waiter { flight, first: false };
        }
        let number = open.get(&key).map_or(0, |(number, _)| number + 1);
        let (told, progress) = watch::channel(P::default());
        let (done, result) = watch::channel(None);
        let (work, all, own) = (work(told), Arc::clone(&self.open), key.clone());
        let task = tokio::spawn(async move {
            let result = work.await;
            // Whoever comes now begins anew, and finds what was done.
            land(&all, &own, number);
            let _ = done.send(Some(result));
        });
        let flight = Arc::new(Flight {
            key: key.clone(),
            number,
            open: Arc::clone(&self.open),
            progress,
            result,
            task: Some(task.abort_handle()),
        });
        open.insert(key, (number, Arc::downgrade(&flight)));
        Waiter { flight, first: true }
    }
}

/// Forgets a flight, unless another has begun under its key since.
fn land<K: Eq + Hash, P, T>(open: &Open<K, P, T>, key: &K, number: u64) {
    let mut open = lock(open);
    if open.get(key).is_some_and(|(other, _)| *other == number) {
        open.remove(key);
    }
}

impl<K: Eq + Hash, P, T: Clone> Waiter<K, P, T> {
    /// How far the work is, from now on.
    pub fn progress(&self) -> watch::Receiver<P> {
        self.flight.progress.clone()
    }

    /// What comes of it; `None` if the work came to no end.
    pub async fn result(&self) -> Option<T> {
        let mut result = self.flight.result.clone();
        let done = result.wait_for(Option::is_some).await.ok()?;
        done.clone()
    }
}

impl<K: Eq + Hash, P, T> Drop for Flight<K, P, T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        land(&self.open, &self.key, self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::{sync::Notify, time::timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn many_who_want_the_same_get_it_from_one() {
        let (flights, begun) = (Flights::<&str, (), usize>::default(), AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let join = || {
            let go = Arc::clone(&go);
            flights.join("key", |_| {
                begun.fetch_add(1, Ordering::Relaxed);
                async move {
                    go.notified().await;
                    7
                }
            })
        };
        let waiters: Vec<_> = (0..10).map(|_| join()).collect();
        go.notify_one();
        for waiter in &waiters {
            assert_eq!(timeout(LONG, waiter.result()).await.unwrap(), Some(7));
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert_eq!(waiters.iter().filter(|waiter| waiter.first).count(), 1);
        assert!(lock(&flights.open).is_empty());
    }

    #[tokio::test]
    async fn work_outlives_one_waiter_and_not_the_last() {
        let flights = Flights::<u8, (), ()>::default();
        let (alive, watched) = tokio::sync::oneshot::channel::<()>();
        let one = flights.join(1, |_| async move {
            let _alive = alive;
            std::future::pending().await
        });
        let two = flights.join(1, |_| std::future::pending());
        drop(one);
        tokio::task::yield_now().await;
        assert!(!two.first && !watched.is_terminated());
        drop(two);
        assert!(timeout(LONG, watched).await.unwrap().is_err(), "the work is dropped");
        assert!(lock(&flights.open).is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_is_nobodys_hang() {
        let flights = Flights::<u8, (), ()>::default();
        let waiter = flights.join(1, |_| async { panic!("a test's") });
        assert_eq!(timeout(LONG, waiter.result()).await.unwrap(), None);
    }
}
