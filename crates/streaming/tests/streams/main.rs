//! The server as its clients see it: over real sockets, with commands and pods that are made up.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bulk;
mod command;
mod fake;
mod forward;
mod hostile;
mod http;
mod place;
mod spdy_client;
mod tls;
mod ws_client;
