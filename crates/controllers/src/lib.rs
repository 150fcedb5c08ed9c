//! The Controller interface, behind which pod sandboxes are made, and its implementations.
//!
//! A controller makes what the containers of a pod share, and keeps it until it is shut down. It
//! knows nothing of names, networks, images or records: those are made around it, by `pods`. Every
//! call has a deadline of its own. `stop` and `shutdown` are idempotent and content with a sandbox
//! that was never made, or half made: they serve the undoing of a run that failed or crashed.

mod error;
mod namespaces;
mod node;
mod pause;
mod programs;
pub mod sandboxer;
mod shims;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use names::{ContainerId, Labels, Nanos, PodId};
use serde::{Deserialize, Serialize};

pub use error::Error;
pub use namespaces::PinnedNamespaces;
pub use node::{boot, node};
pub use pause::Pause;
pub use programs::{own_program, pause_rootfs};
pub use sandboxer::{Prepare, Sandboxer, SandboxerConfig};
pub use shims::{Grouping, Shims};

/// Makes and keeps sandboxes.
#[async_trait]
pub trait Controller: Send + Sync {
    /// Makes the sandbox, without letting anything run in it.
    async fn create(&self, sandbox: &Sandbox) -> Result<(), Error>;

    /// Lets it run, and says where containers may be run in it.
    async fn start(&self, place: &Place) -> Result<Started, Error>;

    /// The system that containers in it will see.
    async fn platform(&self, _place: &Place) -> Result<Platform, Error> {
        Ok(Platform::of_this_host())
    }

    /// Ends what runs in it; returns when that is so. The sandbox can still be asked for its status.
    async fn stop(&self, place: &Place, grace: Duration) -> Result<(), Error>;

    /// Waits until the sandbox has ended, however long that takes.
    async fn wait(&self, place: &Place) -> Result<Exit, Error>;

    async fn status(&self, place: &Place) -> Result<Status, Error>;

    /// Removes all that is left of it, and of what was made in the pod's folder for it.
    async fn shutdown(&self, place: &Place) -> Result<(), Error>;

    /// Tells it of changed resources. Not every controller has a use for them.
    async fn update(
        &self,
        _place: &Place,
        _resources: &oci_spec::runtime::LinuxResources,
    ) -> Result<(), Error> {
        Err(Error::Unsupported { call: "update" })
    }

    /// What the sandbox itself uses, without its containers.
    async fn metrics(&self, _place: &Place) -> Result<shim_api::Stats, Error> {
        Err(Error::Unsupported { call: "metrics" })
    }

    /// Sees to it that somebody serves at the task address of a sandbox that runs: who did may have
    /// been killed. What it supervised is lost, but the sandbox need not be.
    async fn supervise(&self, _place: &Place) -> Result<(), Error> {
        Ok(())
    }

    /// Tells it of a container that is about to be made in the sandbox. Only sandboxes that must bring
    /// a root filesystem to where the container will run want to know.
    async fn prepare(&self, _place: &Place, _container: &Container) -> Result<(), Error> {
        Ok(())
    }

    /// Whether a sandbox with such a pid namespace runs [`Sandbox::program`].
    fn runs_program(&self, _pid: PidNamespace) -> bool {
        true
    }

    /// Tells it that a container is gone, or was never made.
    async fn purge(&self, _place: &Place, _container: &ContainerId) -> Result<(), Error> {
        Ok(())
    }
}

/// Where a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: PodId,
    /// The pod's folder for this boot; it exists.
    pub dir: PathBuf,
    /// The pod's cgroup, absolute in the hierarchy; the sandbox's own is made below it.
    pub cgroup: PathBuf,
}

/// What a sandbox is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    pub place: Place,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    pub labels: Labels,
    pub annotations: Labels,
    pub hostname: String,
    pub log_directory: Option<PathBuf>,
    /// The pinned network namespace; none for the host's.
    pub netns: Option<PathBuf>,
    /// The pinned user namespace; none for the host's. The network namespace belongs to it, if that is
    /// not the host's.
    pub user_namespace: Option<oci::UserNamespace>,
    pub host_ipc: bool,
    pub pid: PidNamespace,
    /// The pod's shared memory, a mounted tmpfs; none with the host's ipc namespace.
    pub shm: Option<PathBuf>,
    /// Names that the oci room has found to be of a namespace that the pod does not share.
    pub sysctls: BTreeMap<String, String>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub groups: Vec<u32>,
    pub privileged: bool,
    pub seccomp: Seccomp,
    /// What runs in the sandbox to hold it, if the controller needs something to.
    pub program: Program,
    /// A runc-like program's path; empty for the built-in runtime.
    pub runtime: String,
}

/// Whose processes the containers of a pod see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Each container its own.
    Container,
    /// All containers those of the pod: it needs a process to be their init.
    Pod,
    Host,
}

/// What runs in a sandbox to hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Its root filesystem; it is seen read-only.
    pub rootfs: PathBuf,
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
}

/// A container that is about to be made.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: ContainerId,
    /// Its folder, with `config.json` and the mounted `rootfs` in it.
    pub bundle: PathBuf,
}

/// How the system calls of the sandbox's own process are filtered.
#[derive(Clone, Debug, PartialEq)]
pub enum Seccomp {
    Unconfined,
    RuntimeDefault,
    /// A profile, as JSON.
    Profile(Vec<u8>),
}

/// Where things are in a sandbox that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// A process in the sandbox's namespaces, if it has one.
    pub pid: Option<u32>,
    pub at: Nanos,
    /// Where the Task API is served for containers of this sandbox.
    pub address: shim_api::Address,
    pub namespaces: Namespaces,
}

/// The namespaces that containers are to join, by path; none stands for the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub network: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    /// There even if containers do not share it: only those that ask for the pod's join it.
    pub pid: Option<PathBuf>,
}

/// A system, in the words of OCI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

impl Platform {
    pub fn of_this_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

/// How a sandbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    pub at: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Stopped(Exit),
    /// The controller has no such sandbox.
    Gone,
}
