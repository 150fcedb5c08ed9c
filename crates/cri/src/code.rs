//! Errors as what the client is told.

use cri_proto::code::of_class;
use names::{Class, chain};
use pods::Error;
use tonic::{Code, Status};

use crate::parse::Rejected;

/// An error of the domain, told with its whole chain: it ends in a pod's events.
pub(crate) fn status(error: Error) -> Status {
    Status::new(of_class(error.class()), error.chain())
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
        class => Status::new(of_class(class), text),
    }
}

pub(crate) fn streaming(error: &streaming::Error) -> Status {
    Status::new(of_class(error.class()), chain(error))
}

pub(crate) fn image(error: &images::Error) -> Status {
    Status::new(of_class(error.class()), chain(error))
}
