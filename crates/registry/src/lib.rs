//! The OCI distribution protocol, as a client: mirrors, authorisation, retries, ranged blobs.
//!
//! A registry is a foreign peer, and so is whatever it redirects to: each step has a deadline, each
//! answer a bound, and credentials reach only the host that they are for. What is fetched is
//! checked against its digest here. Nothing here knows a disk, a layer or a policy of names; what
//! is in a manifest is read only as far as to know that it is one.

mod auth;
mod blob;
mod body;
mod challenge;
mod client;
mod config;
mod dial;
mod endpoint;
mod error;
mod fault;
mod hosts;
mod http;
mod manifest;
mod patience;
mod peer;
mod place;
mod tls;
mod token;

pub use auth::Auth;
pub use blob::Blob;
pub use challenge::{Challenge, parse_challenge};
pub use client::Registry;
pub use config::{Config, Proxies};
pub use error::{Attempt, Error, Tried};
pub use hosts::{BadHosts, Host, Hosts, Warning, parse_hosts};
pub use manifest::{Fetched, LARGEST as LARGEST_MANIFEST};
