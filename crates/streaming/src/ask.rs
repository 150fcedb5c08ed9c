//! What a client may be let do: the requests of CRI, checked. Who may ask is not known here.

use crate::Error;

/// Which of a command's streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A command is to be run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub container: String,
    pub command: Vec<String>,
    pub streams: Streams,
}

/// What runs in a container is to be listened and talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub container: String,
    pub streams: Streams,
}

/// Ports of a pod are to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForward {
    pub pod: String,
    /// Used by a WebSocket client that does not tunnel SPDY; with SPDY, the client says the port for
    /// each connection.
    pub ports: Vec<u16>,
}

/// What a URL is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Exec(Exec),
    Attach(Attach),
    PortForward(PortForward),
}

impl Ask {
    /// The first part of its path.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Exec(exec) if exec.command.is_empty() => Err(Error::Missing("cmd")),
            Self::Exec(Exec { container, streams, .. })
            | Self::Attach(Attach { container, streams }) => check(container, *streams),
            Self::PortForward(PortForward { pod, .. }) if pod.is_empty() => {
                Err(Error::Missing("pod_sandbox_id"))
            }
            Self::PortForward(PortForward { ports, .. }) if ports.contains(&0) => Err(Error::Port),
            Self::PortForward(_) => Ok(()),
        }
    }
}

fn check(container: &str, streams: Streams) -> Result<(), Error> {
    match streams {
        _ if container.is_empty() => Err(Error::Missing("container_id")),
        Streams { tty: true, stderr: true, .. } => Err(Error::TtyAndStderr),
        Streams { stdin: false, stdout: false, stderr: false, .. } => Err(Error::NoStream),
        _ => Ok(()),
    }
}
