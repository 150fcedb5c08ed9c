//! What a caller can do about an error. It is the one vocabulary that every room's errors are put
//! into, and the only thing that gRPC codes are made from (in `cri`).

use std::{error::Error, fmt};

/// The closed set of ways in which a call can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists, and is not the same.
    AlreadyExists,
    /// The request can never succeed as it is.
    InvalidArgument,
    /// The request is well formed, but not in the present state.
    FailedPrecondition,
    /// A limit was reached: descriptors, disk, pending sessions.
    ResourceExhausted,
    /// It took too long. What it began has been ended.
    DeadlineExceeded,
    /// A peer (registry, plugin, shim, sandboxer) cannot be reached now; a retry may succeed.
    Unavailable,
    /// A peer refused our credentials.
    PermissionDenied,
    /// We do not do this.
    Unimplemented,
    /// Stored or fetched data is not what it should be.
    DataLoss,
    /// Anything else: the host or we are at fault.
    Internal,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An error and all that caused it, in one line, for people. Sources are not repeated in the messages
/// of our errors, so this is how they are told, once, at the edge.
pub fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
