//! What the server streams to and from, as whoever runs containers gives it.

use std::{error::Error, future::Future, pin::Pin};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Attach, Exec};

/// Runs what clients ask for. A call of which the future is dropped is to leave nothing behind, and
/// every call is to end in a time of its own.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// Begins a command.
    async fn exec(&self, exec: &Exec) -> Result<Process, Refusal>;

    /// Gives what a container says from now on, and its stdin.
    async fn attach(&self, attach: &Attach) -> Result<Process, Refusal>;

    /// Connects to a port of a pod.
    async fn forward(&self, pod: &str, port: u16) -> Result<Box<dyn Stream>, Refusal>;
}

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A command that was begun, or a container that is attached to. Of its streams, those that were not
/// asked for are dropped.
///
/// When `end` is dropped before it has come, because the client has gone, the command is to be killed,
/// or the container left alone.
///
/// The client is told the end when `end` has come and both outputs are at theirs, so that nothing of
/// what was said is lost. Whoever gives an output that others may hold open sees to its end.
pub struct Process {
    /// Closed when the client closes it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// With a terminal, who sets its size.
    pub terminal: Option<Box<dyn Terminal>>,
    pub end: End,
}

/// The exit code, of 0 to 255.
pub type End = Pin<Box<dyn Future<Output = Result<i32, Refusal>> + Send>>;

/// A terminal whose size can be set. Only the last of several sizes that come fast is set.
#[async_trait]
pub trait Terminal: Send {
    async fn resize(&mut self, size: Size) -> Result<(), Refusal>;
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// Why something is not done, in words for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// An error, and all that caused it.
    pub fn of(error: &dyn Error) -> Self {
        Self(names::chain(error))
    }
}
