//! Containers: which layers each counts on, and where its own files are.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use names::{ContainerId, Digest};
use rustix::{fs::Mode, io::Errno};
use serde::{Deserialize, Serialize};
use sys::beneath;

use super::{Index, Store, record};
use crate::{error::Error, volume::Volume};

pub(super) const RECORD: &str = "record.json";

/// What is kept of a container's root filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub image: Digest,
    pub layers: Vec<Digest>,
    pub target: PathBuf,
    /// The images that it sees beside its own. Older records have none.
    #[serde(default)]
    pub volumes: Vec<Seen>,
}

/// An image that a container sees beside its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub image: Digest,
    pub layers: Vec<Digest>,
    pub target: PathBuf,
}

impl Container {
    /// All layers that it counts on.
    pub fn used(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().chain(self.volumes.iter().flat_map(|seen| &seen.layers))
    }
}

impl Store {
    /// Makes a container count on the layers of its image and of its volumes', from this moment on
    /// and in a record, and gives it a directory.
    ///
    /// The record is not synced: after a crash of the machine no container is there any more.
    pub fn reserve(
        &self,
        id: &ContainerId,
        image: &Digest,
        target: &Path,
        volumes: &[Volume],
    ) -> Result<(OwnedFd, Arc<Container>), Error> {
        let container = self.claim(id, image, target, volumes)?;
        let made = self.make_place(id, &container);
        match made {
            Ok(dir) => Ok((dir, container)),
            Err(error) => {
                // The first error is the one to tell; what is left is released by the next undo.
                let _ = self.release(id);
                Err(error)
            }
        }
    }

    fn claim(
        &self,
        id: &ContainerId,
        image: &Digest,
        target: &Path,
        volumes: &[Volume],
    ) -> Result<Arc<Container>, Error> {
        let mut index = self.index_mut();
        if index.containers.contains_key(id) || index.unclear.contains(id) {
            return Err(Error::Mounted(id.clone()));
        }
        let seen = |volume: &Volume| index.seen(&volume.image, &volume.target);
        let Seen { image, layers, target } = index.seen(image, target)?;
        let volumes = volumes.iter().map(seen).collect::<Result<_, _>>()?;
        let container = Arc::new(Container { image, layers, target, volumes });
        index.containers.insert(id.clone(), Arc::clone(&container));
        Ok(container)
    }

    fn make_place(&self, id: &ContainerId, container: &Container) -> Result<OwnedFd, Error> {
        let path = self.root().join("containers").join(id.as_str());
        let bytes = record::seal(container).map_err(std::io::Error::from);
        let make = || {
            rustix::fs::mkdirat(&self.dirs.containers, id.as_str(), Mode::RWXU)?;
            let dir = beneath::open_listable(&self.dirs.containers, id.as_str().as_bytes())?;
            record::write_new(&dir, RECORD, &bytes?, false)?;
            Ok(dir)
        };
        make().map_err(|error: std::io::Error| Error::io("making", &path, error))
    }

    /// Where the container's volumes are, as far as is known.
    pub fn volumes_of(&self, id: &ContainerId) -> Vec<PathBuf> {
        let index = self.index();
        let volumes = index.containers.get(id).into_iter().flat_map(|known| &known.volumes);
        volumes.map(|seen| seen.target.clone()).collect()
    }

    /// The directory of a container, if it has one.
    pub fn place(&self, id: &ContainerId) -> Result<Option<OwnedFd>, Error> {
        match beneath::open_listable(&self.dirs.containers, id.as_str().as_bytes()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(None),
            Err(error) => {
                Err(Error::io("opening", &self.root().join("containers").join(id.as_str()), error))
            }
        }
    }

    /// Undoes [`Store::reserve`], whatever of it was done, with all that was written since.
    pub fn release(&self, id: &ContainerId) -> Result<(), Error> {
        let aside = self.set_aside(&self.dirs.containers, id.as_str())?;
        {
            let mut index = self.index_mut();
            index.containers.remove(id);
            index.unclear.remove(id);
        }
        self.measures.forget(id);
        aside.map_or(Ok(()), |spare| self.discard(&spare))
    }

    pub fn has_container(&self, id: &ContainerId) -> bool {
        let index = self.index();
        index.containers.contains_key(id) || index.unclear.contains(id)
    }

    pub fn containers(&self) -> Vec<ContainerId> {
        let index = self.index();
        index.containers.keys().chain(&index.unclear).cloned().collect()
    }
}

impl Index {
    fn seen(&self, image: &Digest, target: &Path) -> Result<Seen, Error> {
        let found = self.images.get(image);
        let found = found.ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
        let (image, layers) = (found.id.clone(), found.stacked());
        Ok(Seen { image, layers, target: target.to_owned() })
    }
}
