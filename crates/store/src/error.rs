//! What can go wrong with records.

use std::{io, path::PathBuf};

use names::Class;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is in use by another podbayd; give each its own `root`", .0.display())]
    InUse(PathBuf),
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a key of 32 bytes; without it no record can be trusted", .0.display())]
    BadKey(PathBuf),
    #[error("the record {key} of {table} cannot be written as JSON")]
    Unwritable {
        table: &'static str,
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the record file")]
    Database(#[source] Box<redb::Error>),
    #[error("the record {0} is not in the quarantine")]
    NotInQuarantine(String),
    #[error("the writer of records has ended")]
    Closed,
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::InUse(_) => Class::FailedPrecondition,
            Self::BadKey(_) => Class::DataLoss,
            Self::NotInQuarantine(_) => Class::NotFound,
            Self::Io { source, .. } if is_full(source) => Class::ResourceExhausted,
            Self::Database(error) => match error.as_ref() {
                redb::Error::Io(source) if is_full(source) => Class::ResourceExhausted,
                _ => Class::Internal,
            },
            Self::Io { .. } | Self::Unwritable { .. } | Self::Closed => Class::Internal,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

macro_rules! from_redb {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for Error {
            fn from(error: redb::$kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);
