//! What can go wrong on the command line, in one sentence each: what, where, what to do about it.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use names::Class;
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "podbayd does not answer at {}: is it running? (systemctl status podbayd)",
        socket.display()
    )]
    NoAnswer { socket: PathBuf, source: tonic::transport::Error },
    #[error("you may not use {}: be root, or in the group that owns it", socket.display())]
    NotYours { socket: PathBuf },
    #[error("{what}: {}: {}", code_name(status.code()), said(status))]
    Refused { what: &'static str, status: Box<Status> },
    #[error("{what}: the answer lacks {missing}: is that a runtime with CRI v1?")]
    Odd { what: &'static str, missing: &'static str },
    #[error("there is no {kind} {wanted}: see `{see}`")]
    NoSuch { kind: &'static str, wanted: String, see: &'static str },
    #[error("{wanted} may be each of {}: give more of the id", found.join(", "))]
    Ambiguous { wanted: String, found: Vec<String> },
    #[error("{kind} {wanted} still runs: `podbay stop {wanted}` first, or `podbay rm -f {wanted}`")]
    StillRuns { kind: &'static str, wanted: String },
    #[error("container {0} writes no log")]
    NoLog(String),
    #[error("an archive is not for a terminal: give a file with -o")]
    ArchiveToTerminal,
    #[error("{doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("printing")]
    Output(#[source] io::Error),
    #[error("reading standard input")]
    Input(#[source] io::Error),
    #[error("interrupted; nothing was left")]
    Interrupted,
    #[error(transparent)]
    Demo(#[from] DemoError),
}

/// What can go wrong in the demo besides.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the demo makes a real pod and has to be root: sudo podbay demo")]
    NotRoot,
    #[error("there is no podbayd at {}: give its path with --podbayd", looked_at.display())]
    NoDaemon { looked_at: PathBuf },
    #[error("there is no static busybox on this machine: apt-get install busybox-static")]
    NoBusybox,
    #[error(
        "no directory can hold the demo: /var/tmp, /run and /dev/shm are on overlay file systems \
         or not writable"
    )]
    NoPlace,
    #[error(
        "the bridge {0} is there already: another demo runs, or one was killed (ip link del {0})"
    )]
    BridgeTaken(&'static str),
    #[error("podbayd ended before it was up ({status}); the last it said:\n{log}")]
    DaemonEnded { status: ExitStatus, log: String },
    #[error("podbayd is not up after {seconds} s; the last it said:\n{log}")]
    DaemonSlow { seconds: u64, log: String },
    #[error("the container wrote no line within {seconds} s")]
    Silent { seconds: u64 },
    #[error("the demo is over, but not all of it went: {0}")]
    Left(String),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::NoAnswer { .. } => Class::Unavailable,
            Error::NotYours { .. } => Class::PermissionDenied,
            Error::NoSuch { .. } => Class::NotFound,
            Error::Refused { status, .. } => class_of(status.code()),
            Error::Ambiguous { .. } | Error::ArchiveToTerminal => Class::InvalidArgument,
            Error::StillRuns { .. } | Error::NoLog(_) | Error::Demo(_) => Class::FailedPrecondition,
            Error::Odd { .. } => Class::DataLoss,
            Error::File { .. } | Error::Output(_) | Error::Input(_) | Error::Interrupted => {
                Class::Internal
            }
        }
    }

    /// As the help text says.
    pub fn exit_code(&self) -> u8 {
        match (self, self.class()) {
            (Error::Interrupted, _) => 130,
            (_, Class::Unavailable) => 3,
            (_, Class::NotFound) => 4,
            _ => 1,
        }
    }

    /// The message and those of its causes, in one line. The causes of an absent daemon add
    /// nothing for people.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source().filter(|_| !matches!(self, Error::NoAnswer { .. }));
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }

    /// Whether it is only that nobody reads what we print any more.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What gRPC says, in our words.
fn class_of(code: Code) -> Class {
    match code {
        Code::NotFound => Class::NotFound,
        Code::AlreadyExists => Class::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => Class::InvalidArgument,
        Code::FailedPrecondition | Code::Aborted => Class::FailedPrecondition,
        Code::ResourceExhausted => Class::ResourceExhausted,
        Code::DeadlineExceeded => Class::DeadlineExceeded,
        Code::Unavailable => Class::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Class::PermissionDenied,
        Code::Unimplemented => Class::Unimplemented,
        Code::DataLoss => Class::DataLoss,
        Code::Ok | Code::Unknown | Code::Cancelled | Code::Internal => Class::Internal,
    }
}

/// The name of a code as the documents of gRPC write it, which is what people search for.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The message of a status. What a server says of a call that it does not know helps nobody.
fn said(status: &Status) -> &str {
    match (status.code(), status.message()) {
        (Code::Unimplemented, _) => "the runtime that answers there does not do this",
        (_, "") => "no reason was given",
        (_, message) => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_documents_of_grpc_do() {
        let names = [Code::NotFound, Code::Ok, Code::DeadlineExceeded].map(code_name);
        assert_eq!(names, ["NOT_FOUND", "OK", "DEADLINE_EXCEEDED"]);
    }

    #[test]
    fn a_refusal_is_a_code_and_a_message() {
        let refused = |status| Error::Refused { what: "CreateContainer", status: Box::new(status) };
        let error = refused(Status::not_found("no pod abc"));
        assert_eq!(error.chain(), "CreateContainer: NOT_FOUND: no pod abc");
        assert_eq!(error.exit_code(), 4);
        let error = refused(Status::unimplemented(""));
        assert!(
            error
                .chain()
                .ends_with("UNIMPLEMENTED: the runtime that answers there does not do this")
        );
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn causes_follow_their_effect() {
        let source = io::Error::other("the disk burns");
        let error = Error::File { doing: "reading", path: "/a".into(), source };
        assert_eq!(error.chain(), "reading /a: the disk burns");
    }
}
