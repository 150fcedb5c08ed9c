//! What can go wrong with systemd, and what somebody can do about it.

use std::time::Duration;

use names::Class;
use zbus::fdo;

/// Why a unit could not be had as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its text tells its cause too, which zbus would tell twice.
    #[error(
        "the system bus cannot be reached; see that dbus runs (systemctl start dbus.socket): {0}"
    )]
    NoBus(zbus::Error),
    #[error("{doing} {unit} did not end within {within:?}: systemd, or the bus, hangs")]
    Late { doing: &'static str, unit: String, within: Duration },
    /// The connection broke, or systemd executes itself anew: to be tried again.
    #[error("systemd went away while {doing} {unit}")]
    Away {
        doing: &'static str,
        unit: String,
        #[source]
        source: zbus::Error,
    },
    #[error("there is a unit {0} already")]
    Exists(String),
    #[error("there is no unit {0}")]
    NoSuchUnit(String),
    #[error("{doing} {unit}: this systemd takes no such property: {why}")]
    UnknownProperty { doing: &'static str, unit: String, why: String },
    #[error("{doing} {unit}: systemd refuses: {why}")]
    Refused { doing: &'static str, unit: String, why: String },
    #[error("{doing} {unit}: the job ended as {result:?}; journalctl --unit {unit} may tell why")]
    JobFailed { doing: &'static str, unit: String, result: String },
    #[error("{doing} {unit}: this is no answer of systemd's")]
    BadAnswer {
        doing: &'static str,
        unit: String,
        #[source]
        source: zbus::Error,
    },
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::NoBus(_) | Self::Away { .. } => Class::Unavailable,
            Self::Late { .. } => Class::DeadlineExceeded,
            Self::Exists(_) => Class::AlreadyExists,
            Self::NoSuchUnit(_) => Class::NotFound,
            Self::UnknownProperty { .. } | Self::Refused { .. } | Self::JobFailed { .. } => {
                Class::FailedPrecondition
            }
            Self::BadAnswer { .. } => Class::Internal,
        }
    }

    /// An error of a method call.
    pub(crate) fn of_call(doing: &'static str, unit: &str, error: zbus::Error) -> Self {
        let unit = unit.to_owned();
        match &error {
            zbus::Error::MethodError(name, why, _) => match name.as_str() {
                "org.freedesktop.systemd1.UnitExists" => Self::Exists(unit),
                "org.freedesktop.systemd1.NoSuchUnit" => Self::NoSuchUnit(unit),
                name => {
                    let why = why.clone().unwrap_or_else(|| name.to_owned());
                    Self::Refused { doing, unit, why }
                }
            },
            zbus::Error::FDO(known) => match &**known {
                fdo::Error::PropertyReadOnly(why) | fdo::Error::UnknownProperty(why) => {
                    Self::UnknownProperty { doing, unit, why: why.clone() }
                }
                fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::NoReply(_)
                | fdo::Error::Disconnected(_) => Self::Away { doing, unit, source: error },
                other => Self::Refused { doing, unit, why: other.to_string() },
            },
            zbus::Error::InputOutput(_) => Self::Away { doing, unit, source: error },
            _ => Self::BadAnswer { doing, unit, source: error },
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}
