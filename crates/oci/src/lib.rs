//! A container's plan turned into an OCI runtime config. Pure: reads no host, writes no file. What
//! is asked for and what the host can give both come with the plan.
//!
//! Where Kubernetes leaves a choice, containerd's is taken: then a pod finds what it is used to.

mod annotations;
mod capabilities;
mod config;
mod devices;
mod json;
mod mounts;
mod namespaces;
mod paths;
mod pause;
mod plan;
mod process;
mod rejected;
mod resources;
mod seccomp;
mod sysctls;
mod user;

#[cfg(test)]
mod tests;

pub use capabilities::from_mask as capabilities_from_mask;
pub use config::{Config, Warning, config};
pub use json::to_json;
pub use oci_spec::runtime::{Capability, LinuxSeccomp, Spec};
pub use pause::{PausePlan, pause_config};
pub use plan::{
    Architecture, CapabilityAsk, Device, DeviceKind, Env, IdMapping, ImageProcess, Mount,
    Namespace, Namespaces, Node, Plan, Pod, PodFiles, Process, Propagation, Resources, Root,
    Seccomp, Security, UserNamespace,
};
pub use rejected::Rejected;
pub use resources::resources;
pub use seccomp::{BadProfile, parse_seccomp};
pub use sysctls::{check_sysctls, default_sysctls};
pub use user::{Groups, Passwd, Policy, User, UserAsk, resolve_user};
