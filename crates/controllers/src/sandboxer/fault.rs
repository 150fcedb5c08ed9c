//! What can go wrong between us and a sandboxer.

use std::{path::PathBuf, time::Duration};

use names::Class;

use super::wire::Rejected;
use crate::Error;

/// Why a call to a sandboxer failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody serves there: it has not heard of the call.
    #[error("nobody answers at {}: {words}", address.display())]
    Away { address: PathBuf, words: String },
    /// It may have heard of the call, or not.
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("it did not answer within {0:?}, and may still do what it was asked")]
    Late(Duration),
    #[error("it has been away for {grace:?}, so that it is not known whether the sandbox lives")]
    AwayTooLong {
        grace: Duration,
        #[source]
        last: Box<Error>,
    },
    #[error("it said {class}: {words}")]
    Refused { class: Class, words: String },
    #[error("its answer cannot be used: {0}")]
    Nonsense(String),
    #[error("the sandbox cannot be told to it")]
    Untellable(#[source] Rejected),
}

impl Fault {
    pub fn class(&self) -> Class {
        match self {
            Self::Away { .. } | Self::Lost(_) | Self::AwayTooLong { .. } => Class::Unavailable,
            Self::Late(_) => Class::DeadlineExceeded,
            Self::Refused { class, .. } => *class,
            Self::Nonsense(_) => Class::Internal,
            Self::Untellable(rejected) => rejected.class(),
        }
    }
}
