//! The connection to a runtime, and how calls are made over it: each with a deadline, each error
//! with the name of its call.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use cri_proto::MAX_MESSAGE;
use cri_proto::admin::admin_client::AdminClient;
use cri_proto::v1::image_service_client::ImageServiceClient;
use cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::error::Error;

/// For calls that only look.
pub const LOOK: Duration = Duration::from_secs(30);
/// For calls that change something; what a kubelet gives them.
pub const CHANGE: Duration = Duration::from_secs(120);

const CONNECT: Duration = Duration::from_secs(5);

/// Cheap to clone; the clones share the connection.
#[derive(Clone)]
pub struct Link(Channel);

impl Link {
    /// # Errors
    /// Nobody answers at the socket, or it is not for us.
    pub async fn open(socket: &Path) -> Result<Link, Error> {
        let failed = |source| no_answer(socket, source);
        let endpoint = cri_proto::endpoint(socket).map_err(failed)?.connect_timeout(CONNECT);
        endpoint.connect().await.map(Link).map_err(failed)
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.0.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

fn no_answer(socket: &Path, source: tonic::transport::Error) -> Error {
    let socket = socket.to_owned();
    let mut cause = source.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::PermissionDenied) {
            return Error::NotYours { socket };
        }
        cause = error.source();
    }
    Error::NoAnswer { socket, source }
}

/// A request that must be answered in time.
pub fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// The message of an answer to the call of that name.
pub fn answer<T>(what: &'static str, answer: Result<Response<T>, Status>) -> Result<T, Error> {
    answer
        .map(Response::into_inner)
        .map_err(|status| Error::Refused { what, status: status.into() })
}
