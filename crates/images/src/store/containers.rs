//! Containers: which layers each counts on, and where its own files are.

use std::{os::fd::OwnedFd, sync::Arc};

use names::{ContainerId, Digest};
use rustix::{fs::Mode, io::Errno};
use serde::{Deserialize, Serialize};
use sys::beneath;

use super::{Store, record};
use crate::{error::Error, image::Image};

pub(super) const RECORD: &str = "record.json";

/// What is kept of a container's root filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    pub image: Digest,
    pub layers: Vec<Digest>,
    pub target: String,
}

impl Store {
    /// Makes a container count on an image's layers, from this moment on and in a record, and
    /// gives it a directory.
    ///
    /// The record is not synced: after a crash of the machine no container is there any more.
    pub fn reserve(
        &self,
        id: &ContainerId,
        image: &Digest,
        target: &str,
    ) -> Result<(OwnedFd, Arc<Image>), Error> {
        let image = self.claim(id, image, target)?;
        let made = self.make_place(id);
        match made {
            Ok(dir) => Ok((dir, image)),
            Err(error) => {
                // The first error is the one to tell; what is left is released by the next undo.
                let _ = self.release(id);
                Err(error)
            }
        }
    }

    fn claim(&self, id: &ContainerId, image: &Digest, target: &str) -> Result<Arc<Image>, Error> {
        let mut index = self.index_mut();
        if index.containers.contains_key(id) || index.unclear.contains(id) {
            return Err(Error::Mounted(id.clone()));
        }
        let found = index.images.get(image).cloned();
        let found = found.ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
        let (image, layers) = (found.id.clone(), found.stacked());
        let container = Container { image, layers, target: target.to_owned() };
        index.containers.insert(id.clone(), Arc::new(container));
        Ok(found)
    }

    fn make_place(&self, id: &ContainerId) -> Result<OwnedFd, Error> {
        let path = self.root().join("containers").join(id.as_str());
        let container = self.index().containers.get(id).cloned();
        let bytes = record::seal(&container.as_deref()).map_err(std::io::Error::from);
        let make = || {
            rustix::fs::mkdirat(&self.dirs.containers, id.as_str(), Mode::RWXU)?;
            let dir = beneath::open_listable(&self.dirs.containers, id.as_str().as_bytes())?;
            record::write_new(&dir, RECORD, &bytes?, false)?;
            Ok(dir)
        };
        make().map_err(|error: std::io::Error| Error::io("making", &path, error))
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
        aside.map_or(Ok(()), |spare| self.discard(&spare))
    }

    pub fn containers(&self) -> Vec<ContainerId> {
        let index = self.index();
        index.containers.keys().chain(&index.unclear).cloned().collect()
    }
}
