//! What is on the disk, and the index of it in memory.
//!
//! ```text
//! <root>/lock                      held by the one process that uses all this
//!        layers/<diff id>/fs       a layer, unpacked; with layer.json, what is known of it
//!        images/<image id>.json    a record for each image
//!        containers/<id>/          upper and work of a container's overlay, and record.json
//!        tmp/                      what is being made or unmade; emptied at each start
//!        quarantine/               what could not be read, each with a .why beside it
//! ```
//!
//! Nothing comes into `layers` or `images` but by a rename of what is whole. Readers of the index
//! wait for no disk; writers of the disk wait for each other. What an image means, and where it
//! comes from, is not known here.

mod containers;
mod images;
mod layers;
mod open;
mod quarantine;
pub(crate) mod record;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use names::{ContainerId, Digest};
use rustix::fs::Mode;
use sys::beneath;

pub use self::quarantine::Quarantined;
pub(crate) use self::{
    containers::Container,
    images::Draft,
    layers::{FILES, Hold, Layer},
};
use crate::{
    error::{At, Error},
    image::Image,
    usage::Measures,
};

/// The store's directories, each open.
#[derive(Debug)]
pub(crate) struct Dirs {
    pub layers: OwnedFd,
    pub images: OwnedFd,
    pub containers: OwnedFd,
    pub tmp: OwnedFd,
    pub quarantine: OwnedFd,
}

/// What there is, by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub images: BTreeMap<Digest, Arc<Image>>,
    pub layers: HashMap<Digest, Arc<Layer>>,
    /// Layers that pulls under way count on.
    pub held: HashMap<Digest, u32>,
    pub containers: HashMap<ContainerId, Arc<Container>>,
    /// Containers whose records cannot be read: any layer may be theirs.
    pub unclear: HashSet<ContainerId>,
}

/// All images, layers and containers' root filesystems beneath one directory.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    pub dirs: Dirs,
    index: RwLock<Index>,
    /// Held while names in `layers` and `images` change.
    disk: Mutex<()>,
    /// What makes a name in `tmp` unlike those of earlier runs.
    run: String,
    spare: AtomicU64,
    turn: AtomicU64,
    pub measures: Measures,
    /// What images are called that are to be kept when space is wanted.
    keep: Vec<String>,
    _lock: File,
}

impl Store {
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> MutexGuard<'_, ()> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name that nothing in `tmp` has.
    pub fn spare_name(&self) -> String {
        format!("{}-{}", self.run, self.spare.fetch_add(1, Ordering::Relaxed))
    }

    /// A new directory in `tmp`, gone when dropped.
    pub fn scratch(self: &Arc<Store>) -> Result<Scratch, Error> {
        let name = self.spare_name();
        rustix::fs::mkdirat(&self.dirs.tmp, name.as_str(), Mode::RWXU)
            .at("making a directory beneath", &self.root)?;
        let dir = beneath::open_listable(&self.dirs.tmp, name.as_bytes());
        Ok(Scratch {
            dir: dir.at("opening a directory beneath", &self.root)?,
            name,
            store: Arc::clone(self),
        })
    }

    /// Moves `name` of `dir` into `tmp`, from where it can be removed at leisure. Gives back its
    /// name there, or `None` if there was nothing.
    fn set_aside(&self, dir: &OwnedFd, name: &str) -> Result<Option<String>, Error> {
        let spare = self.spare_name();
        match rustix::fs::renameat(dir, name, &self.dirs.tmp, spare.as_str()) {
            Ok(()) => Ok(Some(spare)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("removing from", &self.root, errno)),
        }
    }

    /// Removes what was set aside.
    fn discard(&self, spare: &str) -> Result<(), Error> {
        beneath::remove(&self.dirs.tmp, spare.as_bytes())
            .at("removing from", &self.root.join("tmp"))
    }
}

/// A directory of its own for something that is being made. What is not renamed away by the time
/// it is dropped is removed.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub dir: OwnedFd,
    pub name: String,
    store: Arc<Store>,
}

impl Scratch {
    /// The store's root, for messages.
    pub fn root(&self) -> &Path {
        self.store.root()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next start.
        let _ = beneath::remove(&self.store.dirs.tmp, self.name.as_bytes());
    }
}
