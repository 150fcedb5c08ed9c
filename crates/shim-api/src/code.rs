//! Error classes as ttrpc codes, and back. Every class has a code of its own, so that what a shim
//! says of an error arrives unchanged.

use names::Class;
use protobuf::Enum as _;
use ttrpc::Code;

/// The code that says `class`.
pub fn of_class(class: Class) -> Code {
    Code::from_i32(class.code()).unwrap_or(Code::INTERNAL)
}

/// The class that `code` says; [`Class::Internal`] for codes that we never send, such as UNKNOWN.
pub fn to_class(code: Code) -> Class {
    Class::of_code(code.value())
}

/// An error as a server gives it to ttrpc.
pub fn refusal(class: Class, message: impl ToString) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(of_class(class), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(Class, Code); 11] = [
        (Class::NotFound, Code::NOT_FOUND),
        (Class::AlreadyExists, Code::ALREADY_EXISTS),
        (Class::InvalidArgument, Code::INVALID_ARGUMENT),
        (Class::FailedPrecondition, Code::FAILED_PRECONDITION),
        (Class::ResourceExhausted, Code::RESOURCE_EXHAUSTED),
        (Class::DeadlineExceeded, Code::DEADLINE_EXCEEDED),
        (Class::Unavailable, Code::UNAVAILABLE),
        (Class::PermissionDenied, Code::PERMISSION_DENIED),
        (Class::Unimplemented, Code::UNIMPLEMENTED),
        (Class::DataLoss, Code::DATA_LOSS),
        (Class::Internal, Code::INTERNAL),
    ];

    #[test]
    fn every_class_survives_the_wire() {
        for (class, code) in PAIRS {
            assert_eq!((of_class(class), to_class(code)), (code, class));
            assert_eq!(to_class(of_class(class)), class);
        }
        assert_eq!(to_class(Code::UNKNOWN), Class::Internal);
    }
}
