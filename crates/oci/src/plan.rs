//! What a container is to be, in our own words: parsed by the caller, no protocol types. What can
//! be wrong in it is found when the config is built.

use std::{fmt, path::PathBuf};

use names::{Labels, PodId};
use oci_spec::runtime::{Capability, LinuxSeccomp};

use crate::user::User;

/// Everything that a container's config is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pod: Pod,
    /// The container's name in its pod.
    pub name: String,
    /// The image as the user wrote it; for the annotation only.
    pub image: String,
    /// Annotations that the administrator lets through to the runtime. Ours win over them.
    pub annotations: Labels,
    pub root: Root,
    pub process: Process,
    pub security: Security,
    pub namespaces: Namespaces,
    pub pod_files: PodFiles,
    /// In the order of the request. Sources exist and are resolved.
    pub mounts: Vec<Mount>,
    /// Volumes that the image declares, for which the caller has made directories.
    pub image_volumes: Vec<Mount>,
    /// Directories are already expanded.
    pub devices: Vec<Device>,
    pub resources: Resources,
    /// Absolute in the hierarchy, or `slice:prefix:name` for systemd.
    pub cgroup: PathBuf,
    pub node: Node,
}

/// The pod that a container is in, or that a pause container holds.
#[derive(Clone, Debug)]
pub struct Pod {
    pub id: PodId,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// Of the pod, or of the node if the pod is in the host's network.
    pub hostname: String,
}

#[derive(Clone, Debug)]
pub struct Root {
    /// Relative to the bundle, or absolute.
    pub path: PathBuf,
    pub readonly: bool,
}

/// What runs.
#[derive(Clone, Debug)]
pub struct Process {
    pub image: ImageProcess,
    /// Replaces the image's entrypoint and drops its command.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    pub env: Vec<Env>,
    /// Empty: the image's.
    pub working_dir: String,
    pub tty: bool,
    pub user: User,
    pub oom_score_adj: Option<i64>,
}

/// What the image says about its process.
#[derive(Clone, Debug, Default)]
pub struct ImageProcess {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    pub working_dir: String,
}

/// A variable of the environment. Its value may be a secret, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Env {
    pub name: String,
    pub value: Vec<u8>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}

/// What the process may do.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// All that the host has: capabilities, devices, no filters, nothing masked.
    pub privileged: bool,
    pub capabilities: CapabilityAsk,
    pub no_new_privs: bool,
    pub seccomp: Seccomp,
    /// The name of a loaded profile; `None` is unconfined.
    pub apparmor: Option<String>,
    /// SELinux labels of the process, and of what is mounted.
    pub process_label: Option<String>,
    pub mount_label: Option<String>,
    /// Used as they are: an empty list masks nothing (`procMount: Unmasked` sends that).
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
}

/// Names with or without `CAP_`, in any case; `ALL` is all.
#[derive(Clone, Debug, Default)]
pub struct CapabilityAsk {
    pub add: Vec<String>,
    pub drop: Vec<String>,
    /// Added, and kept by a process that is not root.
    pub ambient: Vec<String>,
}

/// The filter of system calls.
#[derive(Clone, Debug, Default)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    Profile(Box<LinuxSeccomp>),
}

/// Where each namespace comes from. Mounts are always the container's own.
#[derive(Clone, Debug)]
pub struct Namespaces {
    pub network: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub pid: Namespace,
    pub user: Option<UserNamespace>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    Own,
    /// That of the node.
    Host,
    /// That which this file is bound to.
    Join(PathBuf),
}

/// A user namespace: a new one, or one that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    pub path: Option<PathBuf>,
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

impl UserNamespace {
    /// Who its root is outside of it: uid and gid.
    pub fn root(&self) -> (u32, u32) {
        let host = |maps: &[IdMapping]| {
            maps.iter().find(|map| map.container == 0).map_or(0, |map| map.host)
        };
        (host(&self.uids), host(&self.gids))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    pub host: u32,
    pub container: u32,
    pub length: u32,
}

/// What the pod's containers share of files, by path on the host. What is `None` is not mounted.
#[derive(Clone, Debug, Default)]
pub struct PodFiles {
    pub hosts: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
    /// The host's own if the pod is in the host's IPC namespace.
    pub shm: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub struct Mount {
    pub container_path: String,
    pub host_path: PathBuf,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub propagation: Propagation,
    /// Of `noexec`, `nodev`, `nosuid`.
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// A device node to be made in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub container_path: PathBuf,
    pub kind: DeviceKind,
    pub major: i64,
    pub minor: i64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Letters of `rwm`; none is all.
    pub permissions: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Character,
    Block,
}

/// Limits, as CRI and OCI count. `None` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_shares: Option<u64>,
    /// Microseconds in each period; negative is no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// Bytes; negative is no limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together. If not set, it is `memory`: no swap.
    pub memory_swap: Option<i64>,
    pub pids: Option<i64>,
    /// Page size (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2 and what to write to them.
    pub unified: Labels,
}

/// What this node, and the runtime on it, can give.
#[derive(Clone, Debug)]
pub struct Node {
    pub architecture: Architecture,
    pub cgroup_v2: bool,
    /// The bounding set of the process that starts containers.
    pub capabilities: Vec<Capability>,
    pub swap_accounting: bool,
    pub hugetlb: bool,
    pub seccomp: bool,
    pub apparmor: bool,
    pub selinux: bool,
    pub recursive_read_only: bool,
    /// Our own `oom_score_adj` where we may not go below it (no CAP_SYS_RESOURCE).
    pub oom_score_floor: Option<i32>,
    /// What a privileged container gets.
    pub devices: Vec<Device>,
    /// For containers that ask for no limit of their own.
    pub pids_limit: Option<i64>,
}

/// Decides the dialects of system calls that a filter must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Aarch64,
    Riscv64,
    /// Any other: the filter knows its native system calls only.
    Other,
}

impl Architecture {
    /// That for which this program was built.
    pub fn native() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::X86_64,
            "aarch64" => Self::Aarch64,
            "riscv64" => Self::Riscv64,
            _ => Self::Other,
        }
    }
}
