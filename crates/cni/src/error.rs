//! What can be the matter with a network, and what the caller can do about it.

use std::{fmt, io, path::PathBuf, process::ExitStatus, time::Duration};

use names::Class;

use crate::{dir::NoNetwork, outcome::BadResult};

/// How much of what a plugin says is kept for a message, in bytes.
pub(crate) const QUOTED: usize = 4096;

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
    Status,
    Gc,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Status => "STATUS",
            Verb::Gc => "GC",
        }
    }
}

/// Which plugin was called, of which network, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub verb: Verb,
    pub plugin: String,
    pub network: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { verb, plugin, network } = self;
        write!(f, "CNI {}, plugin {plugin:?} of network {network:?}", verb.as_str())
    }
}

/// A plugin's own account of what went wrong, or what it printed instead of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An error object, as section 5 of the specification has it.
    Told { code: i64, message: String, details: String },
    /// Anything else; cut to 4 KiB.
    Printed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Told { code, message, details } if details.is_empty() => {
                write!(f, "{message} (code {code})")
            }
            Refusal::Told { code, message, details } => {
                write!(f, "{message} (code {code}): {details}")
            }
            Refusal::Printed(text) if text.is_empty() => f.write_str("it gave no reason"),
            Refusal::Printed(text) => write!(f, "it printed {text:?}"),
        }
    }
}

/// What a plugin wrote to stderr, as the end of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(pub String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; on stderr: {:?}", self.0) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    NoNetwork(#[from] NoNetwork),

    #[error("no network {name:?} in {}; the name is the one inside the file", dir.display())]
    NoSuchNetwork { name: String, dir: PathBuf },

    #[error("{field} {found:?} is not {rule}")]
    Refused { field: &'static str, found: String, rule: &'static str },

    #[error("{} is not a network namespace", path.display())]
    NoNamespace { path: PathBuf },

    #[error("{call}: no such program in {dirs:?}; install the CNI plugins there")]
    MissingPlugin { call: Box<Call>, dirs: Vec<PathBuf> },

    #[error("{call}: {} cannot be run", program.display())]
    Unrunnable {
        call: Box<Call>,
        program: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{call}: it did not end within {limit:?} and was killed{said}")]
    TimedOut { call: Box<Call>, limit: Duration, said: Said },

    #[error("{call}: it printed more than {limit} bytes and was killed{said}")]
    TooMuchOutput { call: Box<Call>, limit: u64, said: Said },

    #[error("{call}: {refusal} [{status}]{said}")]
    Failed { call: Box<Call>, refusal: Refusal, status: ExitStatus, said: Said },

    #[error("{call}: it ended well, but gave no usable result{said}")]
    BadResult {
        call: Box<Call>,
        said: Said,
        #[source]
        source: BadResult,
    },

    #[error("talking to {call} failed")]
    Talk {
        call: Box<Call>,
        #[source]
        source: io::Error,
    },

    #[error("network {network:?} speaks CNI {version}, which has no {}", verb.as_str())]
    NoSuchVerb { network: String, verb: Verb, version: &'static str },

    #[error("container {container} was never attached to network {network:?}")]
    NotAttached { container: String, network: String },

    #[error("network {network:?} gave the interface {ifname} of {container} no address")]
    NoAddress { network: String, container: String, ifname: String },

    #[error("the recorded result of network {network:?} is unreadable")]
    BadRecord {
        network: String,
        #[source]
        source: BadResult,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::NoNetwork(_) => Class::Unavailable,
            Error::NoSuchNetwork { .. } | Error::Refused { .. } => Class::InvalidArgument,
            Error::MissingPlugin { .. }
            | Error::NoNamespace { .. }
            | Error::NotAttached { .. }
            | Error::Unrunnable { .. } => Class::FailedPrecondition,
            Error::TimedOut { .. } => Class::DeadlineExceeded,
            Error::Failed { refusal: Refusal::Told { code, .. }, .. } => class_of_code(*code),
            Error::NoSuchVerb { .. } => Class::Unimplemented,
            Error::BadRecord { .. } => Class::DataLoss,
            Error::TooMuchOutput { .. }
            | Error::Failed { .. }
            | Error::BadResult { .. }
            | Error::Talk { .. }
            | Error::NoAddress { .. } => Class::Internal,
        }
    }

    /// Whether this came before any plugin was run, so that there is nothing to undo.
    pub fn made_nothing(&self) -> bool {
        matches!(
            self,
            Error::NoNetwork(_)
                | Error::NoSuchNetwork { .. }
                | Error::Refused { .. }
                | Error::NoNamespace { .. }
                | Error::MissingPlugin { .. }
        )
    }
}

/// The well-known codes of the specification: 1 is a version, 2 a field and 7 a conf that the plugin
/// does not take; 11 asks to try again; 50 and 51 are a STATUS of "not now".
fn class_of_code(code: i64) -> Class {
    match code {
        1 | 2 | 7 => Class::FailedPrecondition,
        11 | 50 | 51 => Class::Unavailable,
        _ => Class::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_which_plugin_of_which_network_and_what_it_said() {
        use std::os::unix::process::ExitStatusExt;
        let call = Call { verb: Verb::Add, plugin: "bridge".into(), network: "pods".into() };
        let refusal = Refusal::Told { code: 11, message: "busy".into(), details: "wait".into() };
        let status = ExitStatus::from_raw(1 << 8);
        let said = Said("lock\n".into());
        let error = Error::Failed { call: Box::new(call), refusal, status, said };
        assert_eq!(
            error.to_string(),
            "CNI ADD, plugin \"bridge\" of network \"pods\": busy (code 11): wait \
             [exit status: 1]; on stderr: \"lock\\n\""
        );
        assert_eq!(error.class(), Class::Unavailable);
    }
}
