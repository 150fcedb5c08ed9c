//! Layers: held while somebody counts on them, committed whole, swept when nobody does.

use std::{collections::HashSet, sync::Arc};

use names::Digest;
use serde::{Deserialize, Serialize};

use super::{Index, Scratch, Store, record};
use crate::error::{At, Error};

/// Where a layer's files are beneath its directory.
pub const FILES: &str = "fs";
pub const RECORD: &str = "layer.json";

/// What is known of a layer that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub diff: Digest,
    /// On the disk, roughly.
    pub bytes: u64,
    pub names: u64,
    /// Whether its root has attributes of its own.
    pub has_root: bool,
    /// Whether it hides all layers beneath.
    pub hides_all: bool,
    /// Directories whose attributes the layers beneath know better.
    pub implied: Vec<String>,
}

/// Keeps a layer from being swept, whether it is here already or is to come.
#[derive(Debug)]
pub(crate) struct Hold {
    store: Arc<Store>,
    diff: Digest,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut index = self.store.index_mut();
        if let Some(count) = index.held.get_mut(&self.diff) {
            *count -= 1;
            if *count == 0 {
                index.held.remove(&self.diff);
            }
        }
    }
}

impl Index {
    /// All layers that nobody counts on, as far as that can be known.
    fn unused(&self) -> Vec<Digest> {
        if !self.unclear.is_empty() {
            return Vec::new();
        }
        let images = self.images.values();
        let images = images.flat_map(|image| image.layers.iter().chain(&image.record.amend));
        let containers = self.containers.values().flat_map(|container| container.used());
        let used: HashSet<&Digest> = images.chain(containers).chain(self.held.keys()).collect();
        self.layers.keys().filter(|diff| !used.contains(diff)).cloned().collect()
    }
}

impl Store {
    /// Holds a layer, and says whether it is here.
    pub fn hold(self: &Arc<Store>, diff: &Digest) -> (Hold, bool) {
        let mut index = self.index_mut();
        *index.held.entry(diff.clone()).or_default() += 1;
        let here = index.layers.contains_key(diff);
        (Hold { store: Arc::clone(self), diff: diff.clone() }, here)
    }

    pub fn layer(&self, diff: &Digest) -> Option<Arc<Layer>> {
        self.index().layers.get(diff).cloned()
    }

    /// Takes in a layer whose files are in `scratch`, verified. All of it is on the disk before its
    /// name is, so that a power cut leaves it whole or not at all.
    pub fn commit_layer(self: &Arc<Store>, scratch: &Scratch, layer: Layer) -> Result<(), Error> {
        let path = self.root().join("layers").join(layer.diff.hex());
        let bytes = record::seal(&layer).map_err(std::io::Error::from).at("describing", &path)?;
        record::write_new(&scratch.dir, RECORD, &bytes, false).at("writing", &path)?;
        rustix::fs::syncfs(&scratch.dir).at("syncing", &path)?;
        let _disk = self.disk();
        if self.index().layers.contains_key(&layer.diff) {
            // Another blob of the same layer was faster.
            return Ok(());
        }
        let name = layer.diff.hex();
        rustix::fs::renameat(&self.dirs.tmp, scratch.name.as_str(), &self.dirs.layers, name)
            .and_then(|()| rustix::fs::fsync(&self.dirs.layers))
            .at("naming", &path)?;
        self.index_mut().layers.insert(layer.diff.clone(), Arc::new(layer));
        Ok(())
    }

    /// Removes all layers that nobody counts on. They are out of the index and of their names at
    /// once; their files go while this runs on.
    pub fn sweep(&self) -> Result<(), Error> {
        // Mostly there is nothing to do, and then nobody waits for those who write.
        if self.index().unused().is_empty() {
            return Ok(());
        }
        for spare in self.set_unused_aside()? {
            self.discard(&spare)?;
        }
        Ok(())
    }

    /// Their names are gone from the disk before the first of their files is: after a power cut, what
    /// has a name is whole.
    pub(super) fn set_unused_aside(&self) -> Result<Vec<String>, Error> {
        let _disk = self.disk();
        let unused = self.forget_unused();
        let mut aside = Vec::new();
        for diff in unused {
            aside.extend(self.set_aside(&self.dirs.layers, diff.hex())?);
        }
        if !aside.is_empty() {
            let path = self.root().join("layers");
            rustix::fs::fsync(&self.dirs.layers).at("syncing the removals from", &path)?;
        }
        Ok(aside)
    }

    fn forget_unused(&self) -> Vec<Digest> {
        let mut index = self.index_mut();
        let unused = index.unused();
        for diff in &unused {
            index.layers.remove(diff);
        }
        unused
    }
}
