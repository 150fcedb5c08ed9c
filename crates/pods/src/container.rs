//! A container: what it owns, its states, and its record.

use std::path::PathBuf;

use names::{ContainerId, Digest, Nanos, PodId};
use serde::{Deserialize, Serialize};

use crate::{
    plan::{ContainerPlan, Resources},
    step::{Phase, Step},
};

/// The version of [`ContainerRecord`]'s shape, to be raised with every change of it.
pub(crate) const RECORD_VERSION: u8 = 2;

/// What a container owns, in the order it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ContainerStep {
    /// Its name and id, reserved, and this record.
    Record,
    /// Its folder, which is its OCI bundle.
    Bundle,
    /// Its root filesystem, its writable layer over those of its image, and the images that it sees
    /// beside its own, mounted.
    Rootfs,
    /// Its task at the pod's shim: the process, not yet let run.
    Task,
}

impl Step for ContainerStep {
    const KIND: &'static str = "container";
    const ALL: &'static [Self] = &[Self::Record, Self::Bundle, Self::Rootfs, Self::Task];

    fn name(self) -> &'static str {
        match self {
            Self::Record => "the record of the container",
            Self::Bundle => "the bundle of the container",
            Self::Rootfs => "the root filesystem of the container",
            Self::Task => "creating the container",
        }
    }
}

/// Where a container is in its life.
///
/// ```text
///            started             died
/// Created ────────────► Running ──────► Exited
///    │                                    ▲
///    └────────────────────────────────────┘
///              died (or would not start)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Life {
    Created,
    Running { pid: u32, started: Nanos },
    Exited { started: Option<Nanos>, death: Death },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Death {
    pub code: i32,
    pub at: Nanos,
    pub reason: Reason,
    pub message: String,
}

/// Why a container ended, in the words that kubectl shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    Completed,
    Error,
    OomKilled,
    /// It could not be started.
    StartError,
    /// Nobody saw it end: its supervisor was killed, or the machine went down.
    Unknown,
}

impl Reason {
    pub fn text(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Unknown => "Unknown",
        }
    }
}

/// What can happen to a container.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Started { pid: u32, at: Nanos },
    Died(Death),
}

/// An event that cannot happen in that state.
#[derive(Clone, Debug, PartialEq)]
pub struct Impossible {
    pub life: Life,
    pub event: Event,
}

impl Life {
    /// What becomes of it. The dead stay dead, and as they died.
    pub fn on(self, event: Event) -> Result<Self, Impossible> {
        match (self, event) {
            (Self::Created, Event::Started { pid, at }) => Ok(Self::Running { pid, started: at }),
            (Self::Created, Event::Died(death)) => Ok(Self::Exited { started: None, death }),
            (Self::Running { started, .. }, Event::Died(death)) => {
                Ok(Self::Exited { started: Some(started), death })
            }
            (life, event) => Err(Impossible { life, event }),
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }
}

impl Death {
    /// The death that a supervisor has seen.
    pub fn seen(exit: shim_api::Exit) -> Self {
        let reason = match (exit.code, exit.oom) {
            (0, _) => Reason::Completed,
            (_, true) => Reason::OomKilled,
            _ => Reason::Error,
        };
        Self { code: exit.code, at: exit.at, reason, message: String::new() }
    }

    /// A death that nobody has seen. 255 is what containerd gives then.
    pub fn unseen(at: Nanos, message: impl Into<String>) -> Self {
        Self { code: 255, at, reason: Reason::Unknown, message: message.into() }
    }
}

/// All that is known of a container. It is durable before what it tells of exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: ContainerId,
    pub pod: PodId,
    pub plan: ContainerPlan,
    pub created_at: Nanos,
    pub boot: String,
    pub phase: Phase<ContainerStep>,
    /// The image's id, and what it is referred to by: a repo digest, if it has one.
    pub image: Digest,
    pub image_ref: String,
    /// The images that are mounted into it.
    pub volumes: Vec<Volume>,
    pub bundle: PathBuf,
    pub cgroup: PathBuf,
    pub log: Option<PathBuf>,
    pub runtime: String,
    /// Who its first process is, once that was looked up in its root filesystem.
    pub user: Option<User>,
    /// The signal that asks it to end, by its number on this machine.
    pub stop_signal: i32,
    /// The limits that hold now.
    pub resources: Resources,
    pub life: Life,
}

/// An image that is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Which of the plan's mounts it is.
    pub mount: usize,
    /// The image's id.
    pub image: Digest,
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl ContainerRecord {
    /// While a container is made nobody knows its id, and it may yet fail.
    pub fn is_shown(&self) -> bool {
        !matches!(self.phase, Phase::Making(_) | Phase::Undoing(_))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn death(code: i32) -> Death {
        Death::seen(shim_api::Exit { code, at: 9, oom: false })
    }

    #[test]
    fn an_exit_that_comes_before_the_start_was_told_is_legal() {
        let life = Life::Created.on(Event::Died(death(1))).unwrap();
        assert_eq!(life, Life::Exited { started: None, death: death(1) });
    }

    #[test]
    fn reasons_are_those_that_kubectl_shows() {
        let reason = |code, oom| Death::seen(shim_api::Exit { code, at: 1, oom }).reason.text();
        assert_eq!(reason(0, false), "Completed");
        assert_eq!(reason(0, true), "Completed");
        assert_eq!(reason(137, true), "OOMKilled");
        assert_eq!(reason(137, false), "Error");
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1u32.., any::<i64>()).prop_map(|(pid, at)| Event::Started { pid, at }),
            any::<i32>().prop_map(|code| Event::Died(death(code))),
        ]
    }

    proptest! {
        #[test]
        fn the_dead_stay_dead_and_as_they_died(events in prop::collection::vec(event(), 0..20)) {
            let mut life = Life::Created;
            for event in events {
                let before = life.clone();
                life = life.on(event).unwrap_or_else(|impossible| impossible.life);
                if before.is_over() {
                    prop_assert_eq!(&life, &before);
                }
            }
        }
    }
}
