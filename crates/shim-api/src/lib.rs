//! What the daemon and a shim say to each other: containerd's Task API, version 3, and Podbay's
//! private service next to it, both over ttrpc, on a unix socket or a vsock.
//!
//! [`proto`] is generated; [`client`] is how the daemon speaks; [`stdio`], [`code`], [`record`] and
//! [`streams`] are the conventions that both ends keep. How a container is run is not known here.

mod address;
pub mod client;
pub mod code;
pub mod proto;
pub mod record;
pub mod stdio;
pub mod streams;

pub use address::{Address, BadAddress};
pub use client::{
    AttachStart, CreateTask, Error, Exec, ExecOutput, ExecStart, ExecSync, Shim, Size, Stats,
    Status, TaskState,
};
pub use proto::{cgroups_v1, cgroups_v2, process, supervisor, task};
pub use record::{Exit, Life};
pub use streams::Streams;

/// The most that ExecSync keeps of each of stdout and stderr, in bytes; what CRI says.
pub const EXEC_OUTPUT_LIMIT: usize = 16 << 20;

/// The `type_url` of resources in Task.Update: containerd's name for the OCI type, as JSON.
pub const RESOURCES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// The `type_url` of `podbay.shim.v1.CreateOptions`.
pub const OPTIONS_URL: &str = "podbay.shim.v1.CreateOptions";

/// The `type_url` of Task.Stats on cgroup v1.
pub const METRICS_V1_URL: &str = "io.containerd.cgroups.v1.Metrics";

/// The `type_url` of Task.Stats on cgroup v2.
pub const METRICS_V2_URL: &str = "io.containerd.cgroups.v2.Metrics";
