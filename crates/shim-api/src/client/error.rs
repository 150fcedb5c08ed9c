//! How a call to a shim can fail.

use std::{io, time::Duration};

use names::Class;

use crate::{Address, code};

/// A call to a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket: the shim is dead, or never lived.
    #[error("no shim answers at {address}")]
    Unreachable {
        address: Address,
        #[source]
        source: io::Error,
    },
    /// The connection broke while the call was under way; whether it was done is not known.
    #[error("the connection to the shim at {address} broke during {call}")]
    Broken {
        address: Address,
        call: &'static str,
        #[source]
        source: ttrpc::Error,
    },
    /// No answer in time; whether the call was, or will be, done is not known.
    #[error("the shim at {address} did not answer {call} within {within:?}")]
    Late { address: Address, call: &'static str, within: Duration },
    /// The shim answered with an error of this class. The message is the shim's.
    #[error("{message}")]
    Refused { class: Class, message: String },
    /// The request cannot be put into a message.
    #[error("{what} cannot be told to a shim: {why}")]
    Untellable { what: &'static str, why: &'static str },
    /// Descriptors do not go out of a machine.
    #[error("the shim at {address} is in another machine, which cannot hand over streams")]
    Elsewhere { address: Address },
    /// What the shim holds out could not be taken, or what was taken is of no use.
    #[error("{doing} of the shim at {address}")]
    Streams {
        doing: &'static str,
        address: Address,
        #[source]
        source: io::Error,
    },
    /// The shim's answer makes no sense.
    #[error("the shim's answer to {call} makes no sense: {why}")]
    Nonsense { call: &'static str, why: String },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Streams { .. } => {
                Class::Unavailable
            }
            Self::Late { .. } => Class::DeadlineExceeded,
            Self::Refused { class, .. } => *class,
            Self::Untellable { .. } => Class::InvalidArgument,
            Self::Elsewhere { .. } => Class::Unimplemented,
            Self::Nonsense { .. } => Class::Internal,
        }
    }

    /// The shim's own refusal, if `error` is one.
    pub(super) fn refusal(error: &ttrpc::Error) -> Option<Self> {
        let ttrpc::Error::RpcStatus(status) = error else { return None };
        // What ttrpc's Rust servers say of a whole service that they do not have.
        let class = match status.message().ends_with(" service does not exist") {
            true => Class::Unimplemented,
            false => code::to_class(status.code()),
        };
        Some(Self::Refused { class, message: status.message().to_owned() })
    }
}
