//! What can go wrong with images, and what a caller can do about it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use names::{BadReference, Class, ContainerId, Digest};
use rustix::io::Errno;

use crate::source::Failure;

/// Why something about images failed. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no image {0} here: pull it first")]
    NoSuchImage(String),
    #[error("{image} is not made for {platform}, but for {offered}")]
    NoPlatform { image: String, platform: String, offered: String },
    #[error("the manifest {digest} is refused: {why}")]
    BadManifest { digest: Digest, why: String },
    #[error("the image config {digest} is refused: {why}")]
    BadConfig { digest: Digest, why: String },
    #[error("the layer {layer} is refused: {why}")]
    BadLayer {
        layer: Digest,
        why: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error("the archive is refused: {why}")]
    BadArchive {
        why: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error("the layer {layer} is too much: {why}")]
    TooMuch { layer: Digest, why: String },
    #[error("{what} is not what its digest says: {wanted} was wanted, and {got} came")]
    Lied { what: &'static str, wanted: Digest, got: Digest },
    #[error("{what} {digest} is not of its size: {wanted} bytes were wanted, and {got} came")]
    WrongSize { what: &'static str, digest: Digest, wanted: u64, got: u64 },
    #[error("cannot fetch {what}")]
    Fetch {
        what: String,
        #[source]
        source: Failure,
    },
    #[error("the work was given up before its end: try again")]
    Interrupted,
    #[error("no space left on the disk of {}: remove images or make it larger", disk.display())]
    DiskFull {
        disk: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("{} is of version {version}, newer than this program: nothing was touched", file.display())]
    Newer { file: PathBuf, version: u32 },
    #[error("{0} is not in the quarantine of images")]
    NotInQuarantine(String),
    #[error("the root filesystem of container {0} is mounted already")]
    Mounted(ContainerId),
    #[error("the image {image} has, at {}, {why}", path.display())]
    NoFolder { image: Digest, path: PathBuf, why: &'static str },
    /// Of the volumes that were to be mounted, the one at this place in the list.
    #[error("mounting an image volume")]
    Volume {
        at: usize,
        #[source]
        source: Box<Error>,
    },
    #[error(transparent)]
    BadReference(#[from] BadReference),
    #[error("{0:?} is no user: it must be a name or a number up to 4294967294")]
    BadUser(String),
    /// The failure of work that several wait for.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::NoSuchImage(_) | Error::NoPlatform { .. } | Error::NotInQuarantine(_) => {
                Class::NotFound
            }
            Error::BadManifest { .. }
            | Error::BadConfig { .. }
            | Error::BadLayer { .. }
            | Error::BadArchive { .. }
            | Error::TooMuch { .. }
            | Error::BadReference(_)
            | Error::BadUser(_)
            | Error::NoFolder { .. } => Class::InvalidArgument,
            Error::Lied { .. } | Error::WrongSize { .. } => Class::DataLoss,
            Error::Fetch { source, .. } => source.class,
            Error::Interrupted => Class::Unavailable,
            Error::DiskFull { .. } => Class::ResourceExhausted,
            Error::Io { .. } => Class::Internal,
            Error::InUse(_) | Error::Newer { .. } => Class::FailedPrecondition,
            Error::Mounted(_) => Class::AlreadyExists,
            Error::Volume { source, .. } => source.class(),
            Error::Shared(error) => error.class(),
        }
    }

    /// An error of the host's filesystem; that its disk is full is told apart.
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        let source = source.into();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Error::DiskFull { disk: path.to_owned(), source },
            _ => Error::Io { doing, path: path.to_owned(), source },
        }
    }
}

/// Says of an error of the host what was being done, and where.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::io(doing, path, source))
    }
}
