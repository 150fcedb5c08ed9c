//! Images: from references to blobs to layers to a root filesystem.
//!
//! [`Images`] is all that others need: it pulls, lists, finds and removes images and mounts them for
//! containers. What is on the disk, and when it is durable, is told in `store`; what of a stranger's
//! archive is believed, in [`unpack`]. gRPC and CRI's messages are not known here, nor who asks.

mod amend;
mod archive;
mod config;
mod error;
mod flight;
mod image;
mod layer;
mod manifest;
mod progress;
mod pull;
mod remote;
mod rootfs;
mod source;
mod store;
pub mod unpack;
mod usage;
mod volume;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use names::{ContainerId, Digest, ImageRef};
use sys::userns::Maps;
use tokio::sync::watch;

pub use self::{
    archive::{NewFile, NewKind},
    config::{ImageConfig, User, parse as parse_config},
    error::Error,
    image::Image,
    manifest::{Document, parse as parse_manifest},
    progress::{Layer as LayerProgress, Progress, State as LayerState},
    rootfs::{Access, Rootfs},
    source::{Auth, Failure, Fetched, Source, Stream},
    store::Quarantined,
    usage::Usage,
    volume::Volume,
};
use self::{
    flight::Flights,
    pull::{LayerFlights, Names, Pull, blocking},
    store::Store,
    unpack::Limits,
};

/// An image's id: the digest of its config.
pub type ImageId = Digest;

/// Where images are kept, and how they are pulled.
#[derive(Clone, Debug)]
pub struct Config {
    /// A directory of our own; made if it is not there.
    pub root: PathBuf,
    /// How many layers of one image come at a time.
    pub parallel: usize,
    pub limits: Limits,
    /// Names of images that are to be kept when space is wanted: whichever image has one is pinned,
    /// for as long as it has it.
    pub keep: Vec<String>,
}

impl Config {
    /// The usual, beneath `root`.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config { root: root.into(), parallel: 3, limits: Limits::default(), keep: Vec::new() }
    }
}

/// Two pulls are the same if they ask for the same with the same credentials.
#[derive(Clone, PartialEq, Eq)]
struct Asked {
    image: ImageRef,
    auth: Option<Auth>,
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.image.hash(state);
    }
}

/// All images beneath one directory. A clone is the same store.
#[derive(Clone)]
pub struct Images(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    source: Arc<dyn Source>,
    pulls: Flights<Asked, Progress, Result<Digest, Arc<Error>>>,
    layers: Arc<LayerFlights>,
    limits: Limits,
    parallel: usize,
}

impl Images {
    /// Opens the store, which no other process may use meanwhile. Reads the disk; blocks.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Newer`], or what the disk said. What cannot be read is no error
    /// but set aside: see [`Images::quarantined`].
    pub fn open(config: Config, source: impl Source) -> Result<Images, Error> {
        Ok(Images(Arc::new(Shared {
            store: Store::open(&config.root, config.keep)?,
            source: Arc::new(source),
            pulls: Flights::default(),
            layers: Arc::default(),
            limits: config.limits,
            parallel: config.parallel,
        })))
    }

    /// The directory that all is kept in.
    pub fn root(&self) -> &Path {
        self.0.store.root()
    }

    /// Pulls an image and gives back its id. Pulls of the same image with the same credentials are
    /// one; it goes on while one of those who asked still waits. Dropped by all, it leaves nothing
    /// but the layers that were whole, which a retry then finds.
    pub async fn pull(
        &self,
        image: &ImageRef,
        auth: Option<Auth>,
        progress: Option<watch::Sender<Progress>>,
    ) -> Result<ImageId, Error> {
        let asked = Asked { image: image.clone(), auth: auth.clone() };
        let source = Arc::clone(&self.0.source);
        let pull = self.new_pull(source, image.clone(), image.wanted(), auth, Names::Asked);
        let waiter =
            self.0.pulls.join(asked, |told| async move { pull.run(told).await.map_err(Arc::new) });
        let mut told = waiter.progress();
        let pass_on = async {
            if let Some(progress) = progress {
                while told.changed().await.is_ok() {
                    progress.send_replace(told.borrow_and_update().clone());
                }
            }
            std::future::pending().await
        };
        let result = tokio::select! {
            biased;
            () = pass_on => None,
            result = waiter.result() => result,
        };
        Ok(result.unwrap_or_else(|| Err(Arc::new(Error::Interrupted)))?)
    }

    fn new_pull(
        &self,
        source: Arc<dyn Source>,
        image: ImageRef,
        wanted: &str,
        auth: Option<Auth>,
        names: Names,
    ) -> Pull {
        Pull {
            store: Arc::clone(&self.0.store),
            source,
            layers: Arc::clone(&self.0.layers),
            limits: self.0.limits.clone(),
            parallel: self.0.parallel,
            image,
            wanted: wanted.to_owned(),
            auth,
            names,
        }
    }

    /// All images, by id. Waits for nobody.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.0.store.list()
    }

    /// The image of this id (with or without `sha256:`, or the beginning of it, of six digits or
    /// more, if it is the only one), tag, or repository and digest. Waits for nobody.
    pub fn find(&self, text: &str) -> Option<Arc<Image>> {
        self.0.store.find(text)
    }

    /// Removes an image, by any of its names, with all of them; it is out of lists at once. Layers
    /// that containers use go when those do. No such image is as good as removed.
    pub async fn remove(&self, text: &str) -> Result<(), Error> {
        let (store, text) = (Arc::clone(&self.0.store), text.to_owned());
        blocking(move || {
            store.erase(&text)?;
            store.sweep()
        })
        .await
    }

    /// Gives an image one more tag. An image that had it before loses it.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or a bad archive's error for a reference with a digest.
    pub async fn tag(&self, text: &str, tag: &ImageRef) -> Result<(), Error> {
        if tag.digest().is_some() {
            let why = format!("{tag} has a digest, which cannot be given to an image");
            return Err(Error::BadArchive { why, source: None });
        }
        let (store, text, tag) = (Arc::clone(&self.0.store), text.to_owned(), tag.clone());
        blocking(move || store.tag(&text, tag)).await
    }

    /// Mounts an image for a container at `target`, an existing directory. On failure nothing is
    /// left of it.
    ///
    /// # Errors
    /// [`Error::Mounted`] if that container has a root filesystem here already, even a broken one:
    /// [`Images::unmount`] comes first then.
    pub async fn mount(
        &self,
        image: &ImageId,
        container: &ContainerId,
        target: &Path,
        access: Access,
    ) -> Result<(), Error> {
        let (image, target) = (image.clone(), target.to_owned());
        let (volumes, owners) = (Vec::new(), Maps::default());
        self.mount_rootfs(container, Rootfs { image, target, access, volumes, owners }).await
    }

    /// The same, with all that a container may want of it.
    ///
    /// # Errors
    /// As above; those of a volume in [`Error::Volume`].
    pub async fn mount_rootfs(&self, container: &ContainerId, of: Rootfs) -> Result<(), Error> {
        let (store, container) = (Arc::clone(&self.0.store), container.clone());
        blocking(move || rootfs::mount(&store, &container, &of)).await
    }

    /// Whether a volume can be made of this folder of an image, without making one. Where the
    /// kernel is too old to tell (before Linux 6.5), mounting it tells.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::NoFolder`].
    pub async fn check_volume(&self, image: &ImageId, sub_path: &Path) -> Result<(), Error> {
        let store = Arc::clone(&self.0.store);
        let (image, sub_path) = (image.clone(), sub_path.to_owned());
        blocking(move || volume::check(&store, &image, &sub_path)).await
    }

    /// Unmounts a container's root filesystem and its volumes, and removes what was written.
    /// Idempotent, and content with what was never mounted, or only half.
    pub async fn unmount(&self, container: &ContainerId, target: &Path) -> Result<(), Error> {
        let store = Arc::clone(&self.0.store);
        let (container, target) = (container.clone(), target.to_owned());
        blocking(move || rootfs::unmount(&store, &container, &target)).await
    }

    /// The containers that have a root filesystem here, mounted or left over.
    pub fn containers(&self) -> Vec<ContainerId> {
        self.0.store.containers()
    }

    /// What all layers take on the disk, roughly; cheap.
    pub fn usage(&self) -> Usage {
        usage::layers(&self.0.store)
    }

    /// What a container has written. Walks its files, unless it did a moment ago.
    pub async fn container_usage(&self, container: &ContainerId) -> Result<Usage, Error> {
        let (store, container) = (Arc::clone(&self.0.store), container.clone());
        blocking(move || usage::container(&store, &container)).await
    }

    /// What all containers have written. Walks their files, as above.
    pub async fn containers_usage(&self) -> Result<Usage, Error> {
        let store = Arc::clone(&self.0.store);
        blocking(move || Ok(usage::containers(&store))).await
    }

    /// What could not be read at a start and was set aside, this time or before.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>, Error> {
        let store = Arc::clone(&self.0.store);
        blocking(move || store.quarantined()).await
    }

    /// Removes one of those, by its name.
    ///
    /// # Errors
    /// [`Error::NotInQuarantine`], or of the disk.
    pub async fn discard_quarantined(&self, name: &str) -> Result<(), Error> {
        let (store, name) = (Arc::clone(&self.0.store), name.to_owned());
        blocking(move || store.discard_quarantined(&name)).await
    }
}
