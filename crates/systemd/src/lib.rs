//! systemd, as far as a container runtime needs it: transient scopes, made and changed and stopped over
//! D-Bus, and what names of slices mean. What is put into a scope, and by whom it is limited, is not known
//! here, and no file of a cgroup is looked at. Every call has a deadline.

mod bus;
mod error;
mod scope;
mod slice;

pub use bus::Systemd;
pub use error::Error;
pub use scope::{Property, Scope, Value};
pub use slice::{BadSlice, Slice};

use std::path::Path;

/// Whether the first process of this machine is systemd, as sd_booted(3) finds out.
pub fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
