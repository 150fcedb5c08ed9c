//! The built-in network on a real kernel. Each test runs alone in a network namespace that plays the
//! host, so the machine's own network is untouched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod pods;
mod ports;
mod speed;
mod world;
