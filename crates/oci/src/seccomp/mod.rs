//! Filters of system calls: the default one, those that come as files, and none.

mod default;
mod parse;
mod table;

use oci_spec::runtime::{Capabilities, LinuxSeccomp};

use crate::plan::{Node, Seccomp};

pub use parse::{BadProfile, parse_seccomp};

/// The privileged are never filtered.
pub(crate) fn of(
    asked: &Seccomp,
    privileged: bool,
    bounding: &Capabilities,
    node: &Node,
) -> Option<LinuxSeccomp> {
    match asked {
        _ if privileged => None,
        Seccomp::Unconfined => None,
        Seccomp::RuntimeDefault => Some(default::profile(bounding, node.architecture)),
        Seccomp::Profile(profile) => Some((**profile).clone()),
    }
}
