//! How a fetch fails as a whole: after every endpoint was tried, with what each of them answered.

use std::{fmt, io, path::PathBuf};

use names::Class;

use crate::fault::Fault;

/// Why something could not be fetched. The last endpoint, which is the registry itself unless
/// `hosts.toml` says otherwise, decides which of these it is. No variant holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no {0}")]
    NotFound(Box<Tried>),
    /// Refused with these credentials, or without any. Registries also say so of what is not there.
    #[error("no access to {0}")]
    Denied(Box<Tried>),
    #[error("cannot fetch {0}")]
    Unavailable(Box<Tried>),
    #[error("too slow: {0}")]
    TimedOut(Box<Tried>),
    #[error("too large: {0}")]
    TooLarge(Box<Tried>),
    #[error("not what its digest says: {0}")]
    DigestMismatch(Box<Tried>),
    #[error("not of its length: {0}")]
    WrongLength(Box<Tried>),
    #[error("cannot use {0}")]
    OldSchema(Box<Tried>),
    #[error("cannot make sense of the answer for {0}")]
    Protocol(Box<Tried>),
    /// A `hosts.toml`, or a file that it names, cannot be used.
    #[error("{}{}: {why}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    BadConfig { file: PathBuf, line: Option<usize>, why: String },
    #[error("cannot read {}", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no server may {what} images of {registry}; see `capabilities` in its hosts.toml")]
    NoServer { registry: String, what: &'static str },
    #[error("{0:?} is neither a tag nor a digest")]
    BadName(String),
    #[error("the user agent {0:?} cannot be sent in a header")]
    BadUserAgent(String),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::NotFound(_) => Class::NotFound,
            Error::Denied(_) => Class::PermissionDenied,
            Error::Unavailable(_) => Class::Unavailable,
            Error::TimedOut(_) => Class::DeadlineExceeded,
            Error::TooLarge(_) => Class::ResourceExhausted,
            Error::DigestMismatch(_) | Error::WrongLength(_) => Class::DataLoss,
            Error::OldSchema(_) => Class::Unimplemented,
            Error::Protocol(_) | Error::Unreadable { .. } => Class::Internal,
            Error::BadConfig { .. } | Error::NoServer { .. } => Class::FailedPrecondition,
            Error::BadName(_) | Error::BadUserAgent(_) => Class::InvalidArgument,
        }
    }

    /// The one that a failed read of a `Blob` carries, if it is one of ours.
    pub fn within(error: &io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn fetch(fault: &Fault, tried: Tried) -> Error {
        let tried = Box::new(tried);
        match fault {
            Fault::TooLarge { .. } => Error::TooLarge(tried),
            Fault::Digest { .. } => Error::DigestMismatch(tried),
            Fault::Length { .. } => Error::WrongLength(tried),
            Fault::OldSchema => Error::OldSchema(tried),
            other => match other.class() {
                Class::NotFound => Error::NotFound(tried),
                Class::PermissionDenied => Error::Denied(tried),
                Class::DeadlineExceeded => Error::TimedOut(tried),
                Class::Unavailable => Error::Unavailable(tried),
                _ => Error::Protocol(tried),
            },
        }
    }

    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Error::NotFound(_) => io::ErrorKind::NotFound,
            Error::Denied(_) => io::ErrorKind::PermissionDenied,
            Error::TimedOut(_) => io::ErrorKind::TimedOut,
            Error::Unavailable(_) => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

/// What was wanted, and how each endpoint that was asked for it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// `docker.io/library/busybox:latest`, or a blob of it.
    pub what: String,
    pub attempts: Vec<Attempt>,
}

/// One endpoint's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its origin: `https://mirror.example:5000`.
    pub endpoint: String,
    /// What it answered, or how it did not. Free of secrets.
    pub answer: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (at, attempt) in self.attempts.iter().enumerate() {
            let joint = if at == 0 { ": " } else { "; " };
            write!(f, "{joint}{}: {}", attempt.endpoint, attempt.answer)?;
        }
        Ok(())
    }
}
