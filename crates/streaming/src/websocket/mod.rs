//! WebSocket (RFC 6455), the server's side of it, and the channels that Kubernetes puts into it. There
//! is no I/O here.
//!
//! It is ours, and not a crate's, for one reason: a message may have any length, so whoever holds
//! messages whole must either refuse large ones or keep that much memory for every client. Here what
//! there is of a message is passed on as it comes.

mod channels;
mod frames;
pub mod probe;
mod tunnel;

pub(crate) use channels::{Access, Channels};
pub(crate) use frames::Broken;
pub(crate) use tunnel::Tunnel;
