//! Error classes as gRPC codes, and back: the one place for it, whoever serves and whoever asks.

use names::Class;
use tonic::Code;

/// The code that says `class`.
pub fn of_class(class: Class) -> Code {
    Code::from_i32(class.code())
}

/// The class that `code` says. Others than we send codes that have no class of their own.
pub fn to_class(code: Code) -> Class {
    match code {
        // What servers say of a call whose time ran out there first.
        Code::Cancelled => Class::DeadlineExceeded,
        Code::Aborted => Class::Unavailable,
        Code::OutOfRange => Class::InvalidArgument,
        Code::Unauthenticated => Class::PermissionDenied,
        _ => Class::of_code(code.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(Class, Code); 11] = [
        (Class::NotFound, Code::NotFound),
        (Class::AlreadyExists, Code::AlreadyExists),
        (Class::InvalidArgument, Code::InvalidArgument),
        (Class::FailedPrecondition, Code::FailedPrecondition),
        (Class::ResourceExhausted, Code::ResourceExhausted),
        (Class::DeadlineExceeded, Code::DeadlineExceeded),
        (Class::Unavailable, Code::Unavailable),
        (Class::PermissionDenied, Code::PermissionDenied),
        (Class::Unimplemented, Code::Unimplemented),
        (Class::DataLoss, Code::DataLoss),
        (Class::Internal, Code::Internal),
    ];

    #[test]
    fn every_class_survives_the_wire() {
        for (class, code) in PAIRS {
            assert_eq!((of_class(class), to_class(code)), (code, class));
            assert_eq!(to_class(of_class(class)), class);
        }
        assert_eq!(to_class(Code::Unknown), Class::Internal);
        assert_eq!(to_class(Code::Cancelled), Class::DeadlineExceeded);
    }
}
