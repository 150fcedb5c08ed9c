//! What a pod or a container is to be, as it was asked for: parsed, checked, with nothing of the
//! wire format left. A plan is a value; it is kept in the record and never changes.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, path::PathBuf};

use names::Labels;
use serde::{Deserialize, Serialize};

/// What kubelet calls a pod by. Two pods never have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub attempt: u32,
}

/// A pod sandbox as it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodPlan {
    pub name: PodName,
    /// The handler as the request named it; empty stands for the default one.
    pub handler: String,
    /// Empty: the pod has its host's name (host network), or its id's beginning.
    pub hostname: String,
    pub log_directory: Option<PathBuf>,
    pub dns: Option<Dns>,
    pub ports: Vec<Port>,
    pub labels: Labels,
    pub annotations: Labels,
    pub namespaces: PodNamespaces,
    pub sysctls: BTreeMap<String, String>,
    pub cgroup_parent: Option<PathBuf>,
    /// Of the sandbox itself.
    pub overhead: Resources,
    /// Of its containers together.
    pub resources: Resources,
    pub security: PodSecurity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the host that leads to one of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub protocol: Protocol,
    pub container_port: NonZeroU16,
    pub host_port: NonZeroU16,
    pub host_ip: Option<IpAddr>,
}

/// Whose namespace a thing lives in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// The pod's, shared by its containers.
    Pod,
    /// The container's own.
    Container,
    /// The host's.
    Node,
    /// That of the container with this id.
    Target(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNamespaces {
    pub network: Sharing,
    pub pid: Sharing,
    pub ipc: Sharing,
    /// Older records have none.
    #[serde(default)]
    pub user: Option<UserNamespace>,
}

/// A user namespace of the pod's own, shared by its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// A run of ids: `length` of them, from `container` inside and `host` outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    pub container: u32,
    pub host: u32,
    pub length: u32,
}

impl PodNamespaces {
    pub fn host_network(&self) -> bool {
        self.network == Sharing::Node
    }
}

/// Limits; nothing set means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds; below zero: no limit.
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes, of memory and swap together, as cgroup v1 counts.
    pub memory_swap: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Page size, such as `2MB`, and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2 and what to write to them.
    pub unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    Unconfined,
    RuntimeDefault,
    /// A path (seccomp) or a loaded profile's name (AppArmor).
    Localhost(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selinux {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSecurity {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub seccomp: Profile,
    /// None if the request says nothing of it.
    pub apparmor: Option<Profile>,
    pub selinux: Option<Selinux>,
}

/// A container as it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub name: String,
    pub attempt: u32,
    /// The image as the request named it: an id, as a rule.
    pub image: String,
    /// The image as the user wrote it.
    pub user_image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    /// In order; a value may hold any bytes but NUL.
    pub envs: Vec<(String, Vec<u8>)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: Labels,
    pub annotations: Labels,
    /// Relative to the pod's log directory.
    pub log_path: Option<PathBuf>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// As CRI numbers it; 0 stands for the image's own.
    pub stop_signal: i32,
    pub resources: Resources,
    pub security: ContainerSecurity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    HostToContainer,
    Bidirectional,
}

/// A folder or file of the host, or an image, seen in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: PathBuf,
    /// Empty if it is an image.
    pub host_path: PathBuf,
    pub image: Option<ImageMount>,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub selinux_relabel: bool,
    pub propagation: Propagation,
    /// Whose files its files are shown as. Older records have none.
    #[serde(default)]
    pub owners: Option<UserNamespace>,
}

/// An image that is seen in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// As the request names it, and as the user wrote it.
    pub image: String,
    pub user_image: String,
    /// The folder in it that is seen in place of its root; empty for the root.
    pub sub_path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    pub permissions: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSecurity {
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub ambient_capabilities: Vec<String>,
    pub privileged: bool,
    pub pid: Sharing,
    /// If it is asked for, it must be the pod's. Older records have none.
    #[serde(default)]
    pub user: Option<UserNamespace>,
    pub run_as_user: Option<i64>,
    pub run_as_username: String,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub strict_groups: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub seccomp: Profile,
    /// None if the request says nothing of it.
    pub apparmor: Option<Profile>,
    pub selinux: Option<Selinux>,
}

/// How a container names its image in answers: what the user wrote, else what the request said.
pub fn shown_image(plan: &ContainerPlan) -> &str {
    if plan.user_image.is_empty() { &plan.image } else { &plan.user_image }
}
