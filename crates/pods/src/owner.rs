//! One pod or one container: its record, which one task at a time may change, and a snapshot of it,
//! which everybody may read without waiting for anybody.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

pub(crate) struct Owner<R> {
    turn: RwLock<Held<R>>,
    shown: watch::Sender<Arc<R>>,
}

struct Held<R> {
    record: R,
    /// Whether the record was erased. Whoever waited for a turn meanwhile must not write it again.
    erased: bool,
}

/// The right to change the record. What was changed is seen by others once it is shown.
pub(crate) struct Turn<'a, R> {
    held: RwLockWriteGuard<'a, Held<R>>,
    shown: &'a watch::Sender<Arc<R>>,
}

impl<R: Clone> Owner<R> {
    pub(crate) fn new(record: R) -> Arc<Self> {
        let shown = watch::Sender::new(Arc::new(record.clone()));
        Arc::new(Self { turn: RwLock::new(Held { record, erased: false }), shown })
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
        (!held.erased).then_some(Turn { held, shown: &self.shown })
    }

    /// Keeps the record from being changed for as long as the guard lives.
    pub(crate) async fn hold(&self) -> RwLockReadGuard<'_, R> {
        RwLockReadGuard::map(self.turn.read().await, |held| &held.record)
    }
}

impl<R: Clone> Turn<'_, R> {
    pub(crate) fn show(&self) {
        self.shown.send_replace(Arc::new(self.held.record.clone()));
    }

    /// There is no record any more: this was the last turn.
    pub(crate) fn erased(&mut self) {
        self.held.erased = true;
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
    use super::*;

    #[tokio::test]
    async fn whoever_waited_while_the_record_was_erased_gets_no_turn() {
        let owner = Owner::new(1);
        let mut turn = owner.turn().await.unwrap();
        let late = owner.turn();
        turn.erased();
        drop(turn);
        assert!(late.await.is_none());
        assert_eq!(*owner.hold().await, 1, "it can still be read");
    }
}
