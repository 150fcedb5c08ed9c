//! The server that `kubectl exec`, `attach` and `port-forward` end at: CRI gives out a URL of it, and a
//! client streams there, over SPDY/3.1 or a WebSocket.
//!
//! What is streamed to and from is behind [`Target`]; of containers and pods nothing is known here but
//! their names. Nobody is trusted but for the token in a URL, and whatever a client does, it harms only
//! itself: everything that is held for it has a limit, and is freed when it has gone.

mod agree;
mod ask;
mod command;
mod drive;
mod error;
mod forward;
mod gather;
mod lane;
mod load;
mod pairs;
mod serve;
mod server;
mod session;
mod sizes;
mod spdy_wire;
mod status;
mod target;
mod tls;
mod tls_wire;
mod tokens;
mod websocket;
mod wire;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

pub use ask::{Ask, Attach, Exec, PortForward, Streams};
pub use error::Error;
pub use load::Load;
pub use server::Server;
#[doc(hidden)]
pub use websocket::probe;

pub use target::{End, Process, Refusal, Size, Stream, Target, Terminal};
pub use tls::{Files, Unusable};

/// How the server is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens. Port 0 is any that is free.
    pub address: SocketAddr,
    /// How long nothing may move on a connection.
    pub idle: Duration,
    /// How long a client may take to open the streams that it needs.
    pub creation: Duration,
    /// Over TLS, and not otherwise, if there is a certificate.
    pub tls: Option<Files>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            idle: Duration::from_secs(4 * 60 * 60),
            creation: Duration::from_secs(30),
            tls: None,
        }
    }
}
