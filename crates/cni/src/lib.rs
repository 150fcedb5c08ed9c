//! The Container Network Interface, as a client: conf lists, ADD, DEL, CHECK, STATUS, GC.
//!
//! The [specification](https://www.cni.dev/docs/spec/) is the source of the rules, versions 0.1.0 to
//! 1.1.0; where it is silent we do as `libcni` does, so that plugins and other tools find what they
//! are used to. An [`Attachment`] is all that a DEL needs: it is recorded by the caller, and works
//! when the conf directory has long been emptied.
//!
//! This room runs plugins and reads what they say. It makes no interface, knows no pod, and keeps no
//! records but the result files that `libcni` would keep.

mod attachment;
mod cache;
mod capability;
mod client;
mod conf;
mod dir;
mod error;
mod exec;
mod outcome;
mod quantity;
mod version;

pub use attachment::{Attachment, pod_args};
pub use capability::{
    BadBandwidth, PortMapping, Protocol, bandwidth, cgroup_path, dns, ips, mac, pod_annotations,
    port_mappings,
};
pub use client::{Cni, Config, Status};
pub use conf::{BadConf, NetworkList, Plugin, parse_conf, parse_conflist};
pub use dir::{NoNetwork, Skipped};
pub use error::{Call, Error, Refusal, Said, Verb};
pub use outcome::{Address, BadResult, Dns, Interface, Outcome, Route, parse_result};
pub use version::Version;
