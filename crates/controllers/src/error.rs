//! What can go wrong with a sandbox.

use std::{io, path::PathBuf, time::Duration};

use names::{Class, PodId};

/// Why a controller could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this controller has no {call}")]
    Unsupported { call: &'static str },
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the shim of the pod did not end within {0:?} of being killed")]
    WillNotDie(Duration),
    #[error("there is no sandbox {0}")]
    NoSandbox(PodId),
    #[error("the sandbox's program cannot be configured")]
    Config(#[source] oci::Rejected),
    #[error("the seccomp profile of the pod")]
    BadProfile(#[source] oci::BadProfile),
    #[error(transparent)]
    Shim(#[from] shim_api::Error),
    /// What a sandboxer of this name did with a call.
    #[error("sandboxer {sandboxer:?}: {call}")]
    Sandboxer {
        sandboxer: String,
        call: &'static str,
        #[source]
        fault: Box<crate::sandboxer::Fault>,
    },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Unsupported { .. } => Class::Unimplemented,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Class::ResourceExhausted
            }
            Self::Io { .. } => Class::Internal,
            Self::NoSandbox(_) => Class::NotFound,
            Self::BadProfile(_) => Class::InvalidArgument,
            Self::WillNotDie(_) => Class::DeadlineExceeded,
            Self::Config(rejected) => rejected.class(),
            Self::Shim(error) => error.class(),
            Self::Sandboxer { fault, .. } => fault.class(),
        }
    }
}

pub(crate) trait Context<T> {
    fn on(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn on(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, path: path.into(), source: source.into() })
    }
}
