//! The sandboxes of this process: each recorded before it is made, and found again after a restart.
//!
//! A sandbox's changes come one after another; looking at it waits for nobody.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controllers::{Controller, Exit, Place, Program, Sandbox, Started, Status};
use names::{Class, PodId};
use serde::{Deserialize, Serialize};
use store::{Records, Store};
use tokio::sync::OwnedMutexGuard;

use crate::error::Error;

/// The table of records, and the version of [`Record`]'s shape.
const TABLE: &str = "sandboxes";
const VERSION: u8 = 1;

/// What a sandbox ended with whose end nobody saw.
const UNSEEN: i32 = 255;

/// What sandboxes are made with.
pub(crate) struct World {
    pub(crate) controller: Arc<dyn Controller>,
    pub(crate) store: Store,
    /// The folder of their folders.
    pub(crate) folder: PathBuf,
    pub(crate) program: Program,
    pub(crate) boot: String,
    /// What clients call us.
    pub(crate) name: String,
}

/// Clones share one table.
#[derive(Clone)]
pub(crate) struct Sandboxes {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    records: Records<Record>,
    known: Mutex<HashMap<PodId, Arc<Kept>>>,
}

/// What is known of a sandbox. It is durable before there is anything of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Nothing of another boot is alive.
    boot: String,
    cgroup: PathBuf,
    /// Whether Create came to its end.
    made: bool,
    pub(crate) started: Option<Started>,
}

/// A sandbox, while there is one.
pub(crate) struct Kept {
    pub(crate) place: Place,
    /// None once it is gone.
    record: Mutex<Option<Record>>,
    /// Held by whoever changes it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Kept {
    fn new(place: Place, record: Record) -> Self {
        Self { place, record: Mutex::new(Some(record)), turn: Arc::default() }
    }

    pub(crate) fn record(&self) -> Option<Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, record: Option<Record>) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}

impl Sandboxes {
    pub(crate) fn new(world: World) -> Self {
        let records = world.store.records(TABLE, VERSION);
        Self { inner: Arc::new(Inner { world, records, known: Mutex::default() }) }
    }

    pub(crate) fn world(&self) -> &World {
        &self.inner.world
    }

    /// The sandbox of this name, if there is one.
    pub(crate) fn find(&self, id: &PodId) -> Option<Arc<Kept>> {
        self.known().get(id).cloned()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PodId, Arc<Kept>>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it, and leaves nothing if that fails.
    pub(crate) async fn create(&self, sandbox: Sandbox) -> Result<(), Error> {
        let (kept, _turn) = self.reserve(&sandbox.place)?;
        let made = self.make(&kept, &sandbox).await;
        if made.is_err()
            && let Err(error) = self.unmake(&kept).await
        {
            // It is known still, and a Shutdown will try again.
            tracing::error!(sandbox = %kept.place.id, error = names::chain(&error), "what was half made cannot be undone yet");
        }
        made
    }

    /// Takes the name, and the first turn.
    fn reserve(&self, place: &Place) -> Result<(Arc<Kept>, OwnedMutexGuard<()>), Error> {
        let mut known = self.known();
        if known.contains_key(&place.id) {
            return Err(Error::Exists(place.id.clone()));
        }
        let record = Record {
            boot: self.world().boot.clone(),
            cgroup: place.cgroup.clone(),
            made: false,
            started: None,
        };
        let kept = Arc::new(Kept::new(place.clone(), record));
        let turn = Arc::clone(&kept.turn).try_lock_owned().expect("nobody else knows of it");
        known.insert(place.id.clone(), Arc::clone(&kept));
        Ok((kept, turn))
    }

    async fn make(&self, kept: &Kept, sandbox: &Sandbox) -> Result<(), Error> {
        self.record(kept, |_| {}).await?;
        let dir = &kept.place.dir;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| io("making the folder", dir, source))?;
        self.world().controller.create(sandbox).await?;
        self.record(kept, |record| record.made = true).await
    }

    /// Makes a change of what is known of it durable.
    async fn record(&self, kept: &Kept, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let id = &kept.place.id;
        let mut record = kept.record().ok_or_else(|| Error::Unknown(id.clone()))?;
        change(&mut record);
        self.inner.records.put(id.as_str(), &record).await?;
        kept.set(Some(record));
        Ok(())
    }

    pub(crate) async fn start(&self, id: &PodId) -> Result<Started, Error> {
        let kept = self.find(id).ok_or_else(|| Error::Unknown(id.clone()))?;
        let _turn = kept.turn().await;
        let started = self.world().controller.start(&kept.place).await?;
        self.record(&kept, |record| record.started = Some(started.clone())).await?;
        Ok(started)
    }

    /// Content with a sandbox that was never made.
    pub(crate) async fn stop(&self, id: &PodId, grace: Duration) -> Result<(), Error> {
        let Some(kept) = self.find(id) else { return Ok(()) };
        let _turn = kept.turn().await;
        Ok(self.world().controller.stop(&kept.place, grace).await?)
    }

    /// Content with a sandbox that was never made.
    pub(crate) async fn shut_down(&self, id: &PodId) -> Result<(), Error> {
        let Some(kept) = self.find(id) else { return Ok(()) };
        let _turn = kept.turn().await;
        self.unmake(&kept).await
    }

    pub(crate) async fn wait(&self, id: &PodId) -> Result<Exit, Error> {
        let kept = self.find(id).ok_or_else(|| Error::Unknown(id.clone()))?;
        match self.world().controller.wait(&kept.place).await {
            // Its supervisor is gone, and with it whoever could tell more.
            Err(error) if error.class() == Class::Unavailable => {
                tracing::warn!(sandbox = %id, error = names::chain(&error), "the sandbox cannot be watched any more");
                Ok(Exit { code: UNSEEN, at: names::now() })
            }
            exit => Ok(exit?),
        }
    }

    /// How it is, and how it was started.
    pub(crate) async fn status(&self, id: &PodId) -> Result<(Status, Option<Started>), Error> {
        let kept = self.find(id).ok_or_else(|| Error::Unknown(id.clone()))?;
        let controller = &self.world().controller;
        let status = controller.status(&kept.place).await?;
        // Whoever asks may have found that nobody serves its task address.
        if status == Status::Running {
            controller.supervise(&kept.place).await?;
        }
        let started = kept.record().and_then(|record| record.started);
        Ok((status, started))
    }

    /// The turn is the caller's.
    async fn unmake(&self, kept: &Kept) -> Result<(), Error> {
        if kept.record().is_none() {
            return Ok(());
        }
        let (id, dir) = (&kept.place.id, &kept.place.dir);
        self.world().controller.shutdown(&kept.place).await?;
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io("removing", dir, error));
            }
            _ => {}
        }
        self.inner.records.erase(id.as_str()).await?;
        self.discard(id).await?;
        kept.set(None);
        self.known().remove(id);
        Ok(())
    }

    /// Removes what was set aside of its record.
    async fn discard(&self, id: &PodId) -> Result<(), Error> {
        let store = &self.world().store;
        let held = store.quarantine()?.into_iter();
        for held in held.filter(|held| held.table == TABLE && held.key == id.as_str()) {
            store.discard(&held.name()).await?;
        }
        Ok(())
    }

    /// Takes up what an earlier process has left. What was half made, or was made in another boot, is
    /// undone; what cannot be undone yet stays known, for a Shutdown.
    pub(crate) async fn recover(&self) -> Result<(), Error> {
        for (key, record) in self.inner.records.scan().await? {
            let Ok(id) = key.parse::<PodId>() else { continue };
            let dead = !record.made || record.boot != self.world().boot;
            let kept = self.adopt(id, record);
            if dead && let Err(error) = self.unmake(&kept).await {
                tracing::error!(sandbox = %kept.place.id, error = names::chain(&error), "what is left of it cannot be removed yet");
            }
        }
        self.adopt_strays();
        Ok(())
    }

    fn adopt(&self, id: PodId, record: Record) -> Arc<Kept> {
        let dir = self.world().folder.join(id.as_str());
        let place = Place { id: id.clone(), dir, cgroup: record.cgroup.clone() };
        let kept = Arc::new(Kept::new(place, record));
        self.known().insert(id, Arc::clone(&kept));
        kept
    }

    /// A sandbox whose record could not be read may be in use. Its folder says how it is, and it can be
    /// shut down.
    fn adopt_strays(&self) {
        for found in fs::read_dir(&self.world().folder).into_iter().flatten().flatten() {
            let id = found.file_name().to_str().and_then(|name| name.parse::<PodId>().ok());
            let Some(id) = id.filter(|id| self.find(id).is_none()) else { continue };
            tracing::error!(sandbox = %id, "it has no record that can be read; it is kept until it is shut down");
            let boot = self.world().boot.clone();
            self.adopt(id, Record { boot, cgroup: "/".into(), made: true, started: None });
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.known().len()
    }
}

fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { doing, path: path.to_owned(), source }
}
