//! What can go wrong with pods and containers, and what the caller can do about it.

use std::{io, path::PathBuf};

use names::Class;

/// Why something could not be done to a pod or a container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no pod sandbox {0}")]
    NoSuchPod(String),
    #[error("no container {0}")]
    NoSuchContainer(String),
    #[error("{text:?} begins the ids of more than one {kind}; give more digits")]
    Ambiguous { kind: &'static str, text: String },
    #[error("the name {name} is taken by {by}; remove that first")]
    NameTaken { name: String, by: String },
    #[error("no runtime handler {name:?}; podbayd offers {}", offered.join(", "))]
    UnknownHandler { name: String, offered: Vec<String> },
    #[error("{field}: {why}")]
    Rejected { field: String, why: String },
    #[error("{why}")]
    Refused { class: Class, why: String },
    #[error("{doing}")]
    At {
        doing: &'static str,
        #[source]
        cause: Box<Error>,
    },
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{doing} did not end within {within:?}")]
    Late { doing: &'static str, within: std::time::Duration },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Images(#[from] images::Error),
    #[error(transparent)]
    Cni(#[from] cni::Error),
    #[error(transparent)]
    Bridge(#[from] network::Error),
    #[error(transparent)]
    Controller(#[from] controllers::Error),
    #[error(transparent)]
    Shim(#[from] shim_api::Error),
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    #[error(transparent)]
    Config(#[from] oci::Rejected),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::NoSuchPod(_) | Self::NoSuchContainer(_) => Class::NotFound,
            Self::Ambiguous { .. } | Self::UnknownHandler { .. } | Self::Rejected { .. } => {
                Class::InvalidArgument
            }
            Self::NameTaken { .. } => Class::AlreadyExists,
            Self::Refused { class, .. } => *class,
            Self::At { cause, .. } => cause.class(),
            Self::Late { .. } => Class::DeadlineExceeded,
            Self::Io { source, .. } => io_class(source),
            Self::Store(error) => error.class(),
            Self::Images(error) => error.class(),
            Self::Cni(error) => error.class(),
            Self::Bridge(error) => error.class(),
            Self::Controller(error) => error.class(),
            Self::Shim(error) => error.class(),
            Self::Systemd(error) => error.class(),
            Self::Config(error) => error.class(),
        }
    }

    /// A word that clients look for stays in front.
    pub(crate) fn at(self, doing: &'static str) -> Self {
        match self {
            Self::At { doing: crate::volumes::FAILED, .. } => self,
            cause => Self::At { doing, cause: Box::new(cause) },
        }
    }

    pub(crate) fn rejected(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Rejected { field: field.into(), why: why.into() }
    }

    pub(crate) fn precondition(why: impl Into<String>) -> Self {
        Self::Refused { class: Class::FailedPrecondition, why: why.into() }
    }

    /// The whole chain in one line, for people and for the kubelet.
    pub fn chain(&self) -> String {
        names::chain(self)
    }
}

fn io_class(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::ResourceExhausted,
        io::ErrorKind::TimedOut => Class::DeadlineExceeded,
        _ => Class::Internal,
    }
}

/// Gives an `io::Result` its place.
pub(crate) trait Context<T> {
    fn on(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn on(self, doing: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { doing, path: path.into(), source: source.into() })
    }
}
