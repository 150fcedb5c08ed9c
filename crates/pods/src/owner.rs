//! One pod or one container: its record, which one task at a time may change, and a snapshot of it,
//! which everybody may read without waiting for anybody.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

pub(crate) struct Owner<R> {
    turn: RwLock<R>,
    shown: watch::Sender<Arc<R>>,
}

/// The right to change the record. What was changed is seen by others once it is shown.
pub(crate) struct Turn<'a, R> {
    record: RwLockWriteGuard<'a, R>,
    shown: &'a watch::Sender<Arc<R>>,
}

impl<R: Clone> Owner<R> {
    pub(crate) fn new(record: R) -> Arc<Self> {
        let shown = watch::Sender::new(Arc::new(record.clone()));
        Arc::new(Self { turn: RwLock::new(record), shown })
    }

    /// The record as it was last shown.
    pub(crate) fn snapshot(&self) -> Arc<R> {
        Arc::clone(&self.shown.borrow())
    }

    /// Tells of every change that is shown from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<R>> {
        self.shown.subscribe()
    }

    /// Waits for whoever is changing the record.
    pub(crate) async fn turn(&self) -> Turn<'_, R> {
        Turn { record: self.turn.write().await, shown: &self.shown }
    }

    /// Keeps the record from being changed for as long as the guard lives.
    pub(crate) async fn hold(&self) -> RwLockReadGuard<'_, R> {
        self.turn.read().await
    }
}

impl<R: Clone> Turn<'_, R> {
    pub(crate) fn show(&self) {
        self.shown.send_replace(Arc::new(self.record.clone()));
    }
}

impl<R> Deref for Turn<'_, R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.record
    }
}

impl<R> DerefMut for Turn<'_, R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.record
    }
}
