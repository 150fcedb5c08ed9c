//! The one place where an error's class becomes a gRPC code.

use names::{Class, chain};
use pods::Error;
use tonic::{Code, Status};

use crate::parse::Rejected;

fn code(class: Class) -> Code {
    match class {
        Class::NotFound => Code::NotFound,
        Class::AlreadyExists => Code::AlreadyExists,
        Class::InvalidArgument => Code::InvalidArgument,
        Class::FailedPrecondition => Code::FailedPrecondition,
        Class::ResourceExhausted => Code::ResourceExhausted,
        Class::DeadlineExceeded => Code::DeadlineExceeded,
        Class::Unavailable => Code::Unavailable,
        Class::PermissionDenied => Code::PermissionDenied,
        Class::Unimplemented => Code::Unimplemented,
        Class::DataLoss => Code::DataLoss,
        Class::Internal => Code::Internal,
    }
}

/// An error of the domain, told with its whole chain: it ends in a pod's events.
pub(crate) fn status(error: Error) -> Status {
    Status::new(code(error.class()), error.chain())
}

pub(crate) fn rejected(error: Rejected) -> Status {
    Status::new(Code::InvalidArgument, error.to_string())
}

/// An error of a pull. The kubelet looks for this word, to tell a registry that is away from an image
/// that is not there (kubernetes/cri-api `pkg/errors`).
pub(crate) fn pull(error: &images::Error) -> Status {
    let text = chain(error);
    match error.class() {
        Class::Unavailable => {
            Status::new(Code::Unavailable, format!("RegistryUnavailable: {text}"))
        }
        class => Status::new(code(class), text),
    }
}

pub(crate) fn streaming(error: &streaming::Error) -> Status {
    Status::new(code(error.class()), chain(error))
}

pub(crate) fn image(error: &images::Error) -> Status {
    Status::new(code(error.class()), chain(error))
}
