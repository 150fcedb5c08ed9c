//! What can go wrong with a call.

use std::{io, path::PathBuf};

use controllers::sandboxer::wire::Rejected;
use names::{Class, PodId};

/// Why a call could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("there is a sandbox {0} already; shut it down first")]
    Exists(PodId),
    #[error("there is no sandbox {0}")]
    Unknown(PodId),
    #[error("the field {0:?} of a sandbox cannot be updated")]
    NotUpdated(String),
    #[error("podbay-sandboxer is ending; its sandboxes go on")]
    Ending,
    #[error("this is a mistake in podbay-sandboxer: the call has panicked, see its log")]
    Panicked,
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Controller(#[from] controllers::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Rejected(rejected) => rejected.class(),
            Self::Exists(_) => Class::AlreadyExists,
            Self::Unknown(_) => Class::NotFound,
            Self::NotUpdated(_) => Class::Unimplemented,
            Self::Ending => Class::Unavailable,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Class::ResourceExhausted
            }
            Self::Panicked | Self::Io { .. } => Class::Internal,
            Self::Controller(error) => error.class(),
            Self::Store(error) => error.class(),
        }
    }
}

/// Told with all that caused it: it ends in a pod's events.
impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::new(cri_proto::code::of_class(error.class()), names::chain(&error))
    }
}
