//! A pod sandbox: what it owns, the order in which that is made, and its record.

use std::{net::IpAddr, path::PathBuf};

use controllers::{Exit, Started};
use names::{Nanos, PodId};
use serde::{Deserialize, Serialize};

use crate::{
    cgroups::Driver,
    plan::{PodName, PodPlan, Resources},
    step::{Phase, Step},
};

/// The version of [`PodRecord`]'s shape, to be raised with every change of it.
pub(crate) const RECORD_VERSION: u8 = 3;

/// What a pod owns, in the order it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PodStep {
    /// Its name and id, reserved, and this record.
    Record,
    /// Its folders, and `hosts`, `hostname`, `resolv.conf` and shared memory in them.
    Files,
    /// The image that its sandbox runs, mounted, if it is not the built-in pause.
    Image,
    /// Its cgroup, unless the kubelet made one; with systemd, its scope.
    Cgroup,
    /// Its user namespace and its network namespace, pinned, unless it has the host's.
    Netns,
    /// Its interfaces, addresses and host ports.
    Network,
    /// Its sandbox, made.
    Create,
    /// Its sandbox, running.
    Start,
}

impl Step for PodStep {
    const KIND: &'static str = "pod";
    const ALL: &'static [Self] = &[
        Self::Record,
        Self::Files,
        Self::Image,
        Self::Cgroup,
        Self::Netns,
        Self::Network,
        Self::Create,
        Self::Start,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Record => "the record of the pod",
            Self::Files => "the files of the pod",
            Self::Image => "the image of the sandbox",
            Self::Cgroup => "the cgroup of the pod",
            Self::Netns => "the network namespace of the pod",
            Self::Network => "the network of the pod",
            Self::Create => "creating the sandbox",
            Self::Start => "starting the sandbox",
        }
    }
}

impl PodStep {
    /// What is left of a stopped pod: this step and those before it. What runs, and what others
    /// could want (addresses, ports), is gone; what can be asked for is kept until it is removed.
    pub const STOPPED: Self = Self::Cgroup;
}

/// All that is known of a pod. It is durable before what it tells of exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    pub id: PodId,
    pub plan: PodPlan,
    pub created_at: Nanos,
    /// The boot that it was made in: nothing of another boot can be alive.
    pub boot: String,
    pub phase: Phase<PodStep>,
    /// The name in the configuration of the handler that was picked.
    pub handler: String,
    /// The name of the controller that made it.
    pub controller: String,
    /// Its folder, which lasts as long as this boot, as all in it does.
    pub state_dir: PathBuf,
    /// Absolute in the hierarchy.
    pub cgroup: PathBuf,
    /// Whether the pod's limits are ours to set: nobody named a cgroup. By its files, it is ours to make
    /// and remove then too; a scope always is.
    pub owns_cgroup: bool,
    /// Who made the cgroup. Older records were made by files.
    #[serde(default)]
    pub driver: Driver,
    /// The limits that hold now: of the sandbox itself, and of its containers together.
    pub overhead: Resources,
    pub resources: Resources,
    /// Where its network namespace is pinned; none for the host's.
    pub netns: Option<PathBuf>,
    /// Where its user namespace is pinned; none for the host's, and in older records.
    #[serde(default)]
    pub userns: Option<PathBuf>,
    pub network: Network,
    /// The first is the primary one.
    pub addresses: Vec<IpAddr>,
    pub started: Option<Started>,
    pub exited: Option<Exit>,
}

/// How the pod is, or is to be, on the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Network {
    /// With the host's, or none yet.
    Host,
    /// By CNI plugins: all that a DEL needs, whatever has become of the configuration since.
    Cni(Vec<cni::Attachment>),
    /// By the built-in bridge.
    Bridge(network::Lease),
}

impl PodRecord {
    pub fn name(&self) -> &PodName {
        &self.plan.name
    }

    /// Whether containers can run in it.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Made && self.exited.is_none()
    }

    /// Whether it is to be seen. While a pod is made nobody knows its id, and it may yet fail.
    pub fn is_shown(&self) -> bool {
        !self.is_half_made()
    }

    /// Whether it is being made, or undone because that failed.
    pub(crate) fn is_half_made(&self) -> bool {
        matches!(self.phase, Phase::Making(_) | Phase::Undoing(_))
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} ({}, attempt {})", self.namespace, self.name, self.uid, self.attempt)
    }
}
