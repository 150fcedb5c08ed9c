//! What can go wrong while measuring.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use names::Class;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nobody answers at {}: is the runtime running?", socket.display())]
    Connect { socket: PathBuf, source: tonic::transport::Error },
    #[error("{what} at {}: {:?}: {}", socket.display(), status.code(), status.message())]
    Call { what: &'static str, socket: PathBuf, status: Box<tonic::Status> },
    #[error("with the handler {handler}: {}", error.chain())]
    Pod { handler: String, error: Box<Error> },
    #[error(
        "no handler {wanted} at {}: it has {}; another socket can have its own, with \
         --other PATH=HANDLERS",
        socket.display(), offered.join(", ")
    )]
    NoHandler { wanted: String, offered: Vec<String>, socket: PathBuf },
    #[error(
        "no image {wanted} at {}: pull it there, or name another with --image",
        socket.display()
    )]
    NoSuchImage { wanted: String, socket: PathBuf },
    #[error(
        "no image at {} has busybox in its name: pull one there, name another with --image, or \
         let Podbay make one with --make-image",
        socket.display()
    )]
    NoImage { socket: PathBuf },
    #[error("{} cannot be read: give a static busybox to --make-image", path.display())]
    Busybox { path: PathBuf, source: io::Error },
    #[error("no directory for the logs of the pods can be made")]
    Logs(#[source] io::Error),
    #[error("{} cannot be read", path.display())]
    Proc { path: PathBuf, source: io::Error },
    #[error("pods of an earlier or this run will not go at {}: {left} are left", socket.display())]
    Stuck { socket: PathBuf, left: usize },
    #[error("interrupted; the pods were removed")]
    Interrupted,
    #[error(
        "interrupted twice; pods with the label podbay-bench=1 are left, the next run removes them"
    )]
    Impatient,
}

impl Error {
    /// The message and those of its causes, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }

    pub fn class(&self) -> Class {
        match self {
            Error::Connect { .. } => Class::Unavailable,
            Error::NoHandler { .. }
            | Error::NoSuchImage { .. }
            | Error::NoImage { .. }
            | Error::Busybox { .. } => Class::NotFound,
            Error::Pod { error, .. } => error.class(),
            Error::Stuck { .. } => Class::DeadlineExceeded,
            _ => Class::Internal,
        }
    }

    /// As the help text says.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match (self, self.class()) {
            (Error::Interrupted | Error::Impatient, _) => 130,
            (_, Class::Unavailable) => 3,
            _ => 1,
        })
    }
}
