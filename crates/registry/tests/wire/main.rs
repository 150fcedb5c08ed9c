//! The client against servers that misbehave in every way that a registry can, and against a real
//! one. All of them are on loopback, and end with the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in what it calls")]

mod blobs;
mod credentials;
mod evil;
mod faults;
mod mirrors;
mod real;
mod scene;
mod tls;
