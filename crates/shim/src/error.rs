//! What can go wrong in a shim, and how it is told over ttrpc, which has a code and one text.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use names::Class;
use shim_api::code;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no container {0:?} in this pod")]
    NoSuchContainer(String),
    #[error("container {0:?} exists already in this pod")]
    Exists(String),
    /// The request can never succeed as it is.
    #[error("{what}: {why}")]
    Bad { what: &'static str, why: String },
    /// The container is in another state than the call needs.
    #[error("container {id:?} is {is}, and must be {wanted}")]
    WrongState { id: String, is: &'static str, wanted: &'static str },
    /// The kernel would not run the program: what a user of runc is used to read.
    #[error("{0}")]
    NotExecutable(String),
    /// The OCI runtime, built in or not, refused. The words are its own.
    #[error("{doing}: {words}")]
    Runtime { doing: &'static str, words: String },
    #[error("{doing} took longer than {within:?}, and was ended")]
    Late { doing: &'static str, within: Duration },
    #[error("the command was ended, since nobody waits for it")]
    Abandoned,
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{doing}")]
    Kernel {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the pod still has containers: {0}")]
    NotEmpty(String),
    #[error("{0} is not served by this shim")]
    Unserved(&'static str),
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::NoSuchContainer(_) => Class::NotFound,
            Self::Exists(_) => Class::AlreadyExists,
            Self::Bad { .. } => Class::InvalidArgument,
            Self::WrongState { .. } | Self::NotExecutable(_) | Self::NotEmpty(_) => {
                Class::FailedPrecondition
            }
            Self::Late { .. } | Self::Abandoned => Class::DeadlineExceeded,
            Self::Unserved(_) => Class::Unimplemented,
            Self::Io { source, .. } | Self::Kernel { source, .. } => class_of(source),
            Self::Runtime { .. } => Class::Internal,
        }
    }

    pub fn bad(what: &'static str, why: impl Into<String>) -> Self {
        Self::Bad { what, why: why.into() }
    }

    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    /// For `map_err` after a system call.
    pub fn kernel<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { doing, source: source.into() }
    }

    /// The message and those of its sources, in one text.
    pub fn words(&self) -> String {
        let mut words = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            words = format!("{words}: {error}");
            source = error.source();
        }
        words
    }
}

fn class_of(source: &io::Error) -> Class {
    use io::ErrorKind::{QuotaExceeded, StorageFull, Unsupported};
    match source.kind() {
        StorageFull | QuotaExceeded => Class::ResourceExhausted,
        Unsupported => Class::FailedPrecondition,
        _ => match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM) => {
                Class::ResourceExhausted
            }
            _ => Class::Internal,
        },
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        code::refusal(error.class(), error.words())
    }
}
