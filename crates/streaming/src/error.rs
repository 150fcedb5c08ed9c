//! Why a URL is not given, or the server does not come up. What goes wrong with a client later is for
//! that client, and for the log.

use std::{io, net::SocketAddr};

use names::Class;

use crate::Unusable;

/// How the server fails. Where CRI's reference server has words for it, they are the same.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("missing required {0}")]
    Missing(&'static str),
    #[error("tty and stderr cannot both be true")]
    TtyAndStderr,
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStream,
    #[error("ports go from 1 to 65535")]
    Port,
    #[error(
        "maximum number of in-flight requests exceeded: {0} URLs were given out and not used; each \
         is good for a minute"
    )]
    TooMany(usize),
    #[error("cannot listen for streams at {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("no TLS for streams")]
    Tls(#[from] Unusable),
    #[error("the kernel gives no random bytes")]
    Random(#[source] io::Error),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Missing(_) | Self::TtyAndStderr | Self::NoStream | Self::Port => {
                Class::InvalidArgument
            }
            Self::TooMany(_) => Class::ResourceExhausted,
            Self::Listen { .. } | Self::Tls(_) => Class::FailedPrecondition,
            Self::Random(_) => Class::Internal,
        }
    }
}
