//! What a caller can do about an error. It is the one vocabulary that every room's errors are put
//! into, and the only thing that gRPC codes are made from.

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

/// gRPC's numbers (google.rpc.Code), which ttrpc has too.
const CODES: [(Class, i32); 11] = [
    (Class::InvalidArgument, 3),
    (Class::DeadlineExceeded, 4),
    (Class::NotFound, 5),
    (Class::AlreadyExists, 6),
    (Class::PermissionDenied, 7),
    (Class::ResourceExhausted, 8),
    (Class::FailedPrecondition, 9),
    (Class::Unimplemented, 12),
    (Class::Internal, 13),
    (Class::Unavailable, 14),
    (Class::DataLoss, 15),
];

impl Class {
    /// The number of the gRPC code that says this.
    pub fn code(self) -> i32 {
        CODES.iter().find(|(class, _)| *class == self).map_or(13, |(_, code)| *code)
    }

    /// What the gRPC code of this number says; [`Class::Internal`] for those that we never send.
    pub fn of_code(code: i32) -> Self {
        CODES.iter().find(|(_, known)| *known == code).map_or(Self::Internal, |(class, _)| *class)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_code_of_its_own() {
        for (class, code) in CODES {
            assert_eq!((class.code(), Class::of_code(code)), (code, class));
        }
        let unknown = 2;
        assert_eq!(Class::of_code(unknown), Class::Internal);
    }
}
