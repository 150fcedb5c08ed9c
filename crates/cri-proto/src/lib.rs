//! The Container Runtime Interface v1, generated from our own `api.proto`, and the small protocol
//! that our command line speaks besides. Messages, clients and servers, and how a socket is
//! addressed, and which code says which class of errors; no behaviour, except that what is secret does
//! not print.

pub mod code;
mod redact;

use std::path::Path;

use tonic::codegen::http::Uri;
use tonic::transport::{Endpoint, Error};

/// `runtime.v1`, the Container Runtime Interface.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction)]
    tonic::include_proto!("runtime.v1");
}

/// `podbay.admin.v1`, what the command line asks beyond it.
pub mod admin {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction)]
    tonic::include_proto!("podbay.admin.v1");
}

/// The largest message that we send or take, in bytes. A kubelet takes no more, and tonic's own
/// 4 MiB do not hold the list of a large node.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Where a unix socket is reached. Calls to it name `localhost` as their authority, as a kubelet's
/// do. Connects to nothing yet.
///
/// # Errors
/// The path is not UTF-8.
pub fn endpoint(socket: &Path) -> Result<Endpoint, Error> {
    let mut address = b"unix://".to_vec();
    address.extend_from_slice(socket.as_os_str().as_encoded_bytes());
    Ok(Endpoint::from_shared(address)?.origin(Uri::from_static("http://localhost")))
}
