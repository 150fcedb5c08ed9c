//! What the client takes and gives: values that are right by construction, made from messages.

use std::{path::PathBuf, time::Duration};

use names::Nanos;
use protobuf::{Message as _, MessageField, well_known_types::timestamp::Timestamp};

use super::Error;
use crate::{Exit, METRICS_V1_URL, METRICS_V2_URL, cgroups_v1, cgroups_v2, process, task};

/// What to create a container from.
#[derive(Clone, Debug, Default)]
pub struct CreateTask {
    pub id: String,
    /// The OCI bundle: an absolute path, with `config.json` and the mounted `rootfs` in it.
    pub bundle: PathBuf,
    /// A runc-like binary's absolute path, or empty for the runtime built into the shim.
    pub runtime: String,
    /// The CRI log's absolute path; without one the output is dropped.
    pub log: Option<PathBuf>,
    pub terminal: bool,
    /// Keep stdin open for a later attach; else it is `/dev/null`.
    pub stdin: bool,
    /// Close stdin when the first attached client goes.
    pub stdin_once: bool,
    pub no_pivot: bool,
    pub systemd_cgroup: bool,
}

/// A command to run in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecSync {
    pub args: Vec<String>,
    /// How long it may run before it is killed.
    pub timeout: Option<Duration>,
}

/// What a command left behind. Output beyond [`crate::EXEC_OUTPUT_LIMIT`] is not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The exit status, or 128 and the signal.
    pub code: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Stopped,
}

/// A task as the shim sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskState {
    pub id: String,
    /// The container's folder, as it was given when it was made.
    pub bundle: PathBuf,
    pub status: Status,
    /// The init process on the host. It may be gone if the status is [`Status::Stopped`].
    pub pid: u32,
    /// There if, and only if, the status is [`Status::Stopped`].
    pub exit: Option<Exit>,
}

/// A container's metrics, by the version of its cgroups.
#[derive(Clone, Debug, PartialEq)]
pub enum Stats {
    V1(Box<cgroups_v1::Metrics>),
    V2(Box<cgroups_v2::Metrics>),
}

/// A time as messages carry it.
pub fn timestamp(at: Nanos) -> Timestamp {
    let second = 1_000_000_000;
    let nanos = i32::try_from(at.rem_euclid(second)).expect("a second has fewer than 2^31 ns");
    Timestamp { seconds: at.div_euclid(second), nanos, ..Timestamp::default() }
}

/// The reverse of [`timestamp`]. Times that do not fit are the farthest that do.
pub fn nanos(at: &Timestamp) -> Nanos {
    at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos))
}

/// An exit, if a message says when it was.
pub(super) fn exit(code: u32, at: &MessageField<Timestamp>, oom: bool) -> Option<Exit> {
    let at = nanos(at.as_ref()?);
    (at != 0).then(|| Exit { code: code.cast_signed(), at, oom })
}

impl TryFrom<task::StateResponse> for TaskState {
    type Error = Error;

    fn try_from(reply: task::StateResponse) -> Result<Self, Error> {
        let nonsense = |why: String| Error::Nonsense { call: "State", why };
        let exit = exit(reply.exit_status, &reply.exited_at, reply.oom);
        let status = match reply.status.enum_value() {
            Ok(process::Status::CREATED) => Status::Created,
            Ok(process::Status::STOPPED) => Status::Stopped,
            Ok(process::Status::UNKNOWN) => return Err(nonsense("no status".to_owned())),
            Ok(_) => Status::Running,
            Err(number) => return Err(nonsense(format!("status {number}"))),
        };
        if (status == Status::Stopped) != exit.is_some() {
            return Err(nonsense(format!("{status:?}, with exit {exit:?}")));
        }
        Ok(Self { id: reply.id, bundle: reply.bundle.into(), status, pid: reply.pid, exit })
    }
}

impl From<Status> for process::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Created => Self::CREATED,
            Status::Running => Self::RUNNING,
            Status::Stopped => Self::STOPPED,
        }
    }
}

impl TryFrom<task::StatsResponse> for Stats {
    type Error = Error;

    fn try_from(reply: task::StatsResponse) -> Result<Self, Error> {
        let any = reply.stats.unwrap_or_default();
        let nonsense = |why: String| Error::Nonsense { call: "Stats", why };
        match any.type_url.as_str() {
            METRICS_V1_URL => cgroups_v1::Metrics::parse_from_bytes(&any.value)
                .map(|metrics| Self::V1(Box::new(metrics))),
            METRICS_V2_URL => cgroups_v2::Metrics::parse_from_bytes(&any.value)
                .map(|metrics| Self::V2(Box::new(metrics))),
            other => return Err(nonsense(format!("metrics of type {other:?}"))),
        }
        .map_err(|e| nonsense(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_wire() {
        for at in [0, 1, 1_795_555_555_123_456_789, -1, i64::MAX] {
            assert_eq!(nanos(&timestamp(at)), at);
        }
    }

    #[test]
    fn a_stopped_task_without_an_exit_is_nonsense() {
        let mut reply = task::StateResponse { id: "a".to_owned(), ..Default::default() };
        assert!(TaskState::try_from(reply.clone()).is_err(), "no status at all");
        reply.status = process::Status::STOPPED.into();
        assert!(TaskState::try_from(reply.clone()).is_err());
        reply.exited_at = MessageField::some(timestamp(5));
        reply.exit_status = 137;
        let exit = Some(Exit { code: 137, at: 5, oom: false });
        assert_eq!(TaskState::try_from(reply.clone()).unwrap().exit, exit);
        reply.status = process::Status::RUNNING.into();
        assert!(TaskState::try_from(reply).is_err(), "a running task has no exit");
    }
}
