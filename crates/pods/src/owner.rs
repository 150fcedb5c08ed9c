//! One pod or one container: its record, which one task at a time may change, and a snapshot of it,
//! which everybody may read without waiting for anybody.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Weak},
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

pub(crate) struct Owner<R> {
    turn: RwLock<Held<R>>,
    shown: watch::Sender<Arc<R>>,
    /// Gone when nobody is left who could ask.
    ear: Weak<dyn Hears<R>>,
}

/// Hears of every change, as it is shown. It must not wait for anything.
pub(crate) trait Hears<R>: Send + Sync {
    fn changed(&self, before: &R, after: &Arc<R>);

    fn erased(&self, last: &Arc<R>);
}

struct Held<R> {
    record: R,
    /// Whether the record was erased. Whoever waited for a turn meanwhile must not write it again.
    erased: bool,
}

/// The right to change the record. What was changed is seen by others once it is shown.
pub(crate) struct Turn<'a, R> {
    held: RwLockWriteGuard<'a, Held<R>>,
    owner: &'a Owner<R>,
}

impl<R: Clone> Owner<R> {
    pub(crate) fn new(record: R, ear: Weak<dyn Hears<R>>) -> Arc<Self> {
        let shown = watch::Sender::new(Arc::new(record.clone()));
        Arc::new(Self { turn: RwLock::new(Held { record, erased: false }), shown, ear })
    }

    /// The record as it was last shown.
    pub(crate) fn snapshot(&self) -> Arc<R> {
        Arc::clone(&self.shown.borrow())
    }

    /// Tells of every change that is shown from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<R>> {
        self.shown.subscribe()
    }

    /// Waits for whoever is changing the record. None if that erased it.
    pub(crate) async fn turn(&self) -> Option<Turn<'_, R>> {
        let held = self.turn.write().await;
        (!held.erased).then_some(Turn { held, owner: self })
    }

    /// Keeps the record from being changed for as long as the guard lives.
    pub(crate) async fn hold(&self) -> RwLockReadGuard<'_, R> {
        RwLockReadGuard::map(self.turn.read().await, |held| &held.record)
    }
}

impl<R: Clone> Turn<'_, R> {
    pub(crate) fn show(&self) {
        let after = Arc::new(self.held.record.clone());
        let before = self.owner.shown.send_replace(Arc::clone(&after));
        if let Some(ear) = self.owner.ear.upgrade() {
            ear.changed(&before, &after);
        }
    }

    /// There is no record any more: this was the last turn.
    pub(crate) fn erased(&mut self) {
        self.held.erased = true;
        if let Some(ear) = self.owner.ear.upgrade() {
            ear.erased(&self.owner.snapshot());
        }
    }
}

impl<R> Deref for Turn<'_, R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.held.record
    }
}

impl<R> DerefMut for Turn<'_, R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.held.record
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Ear(Mutex<Vec<String>>);

    impl Hears<i32> for Ear {
        fn changed(&self, before: &i32, after: &Arc<i32>) {
            self.0.lock().unwrap().push(format!("{before} became {after}"));
        }

        fn erased(&self, last: &Arc<i32>) {
            self.0.lock().unwrap().push(format!("{last} is no more"));
        }
    }

    #[tokio::test]
    async fn what_is_shown_is_heard() {
        let ear = Arc::new(Ear::default());
        let heard: Weak<Ear> = Arc::downgrade(&ear);
        let owner = Owner::new(1, heard);
        let mut turn = owner.turn().await.unwrap();
        *turn = 2;
        *turn = 3;
        turn.show();
        turn.erased();
        assert_eq!(*ear.0.lock().unwrap(), ["1 became 3", "3 is no more"]);
    }

    #[tokio::test]
    async fn whoever_waited_while_the_record_was_erased_gets_no_turn() {
        let owner = Owner::new(1, Weak::<Ear>::new());
        let mut turn = owner.turn().await.unwrap();
        let late = owner.turn();
        turn.erased();
        drop(turn);
        assert!(late.await.is_none());
        assert_eq!(*owner.hold().await, 1, "it can still be read");
    }
}
