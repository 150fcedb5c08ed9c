//! Giving up capabilities: the five sets of a process, as its config has them.

use std::io;

use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Takes back into effect what was kept over a change of user.
pub fn raise() -> io::Result<()> {
    let kept = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { effective: kept.permitted, ..kept })?)
}

/// Gives up all but these. A process without any set has none, where its config says nothing.
pub fn keep_only(wanted: &LinuxCapabilities) -> io::Result<()> {
    let bounding = set(wanted.bounding().as_ref())?;
    for one in CapabilitySet::all().iter().filter(|one| !bounding.contains(*one)) {
        // What the kernel does not know it has not.
        if capability_is_in_bounding_set(one).unwrap_or(false) {
            remove_capability_from_bounding_set(one)?;
        }
    }
    let sets = CapabilitySets {
        effective: set(wanted.effective().as_ref())?,
        permitted: set(wanted.permitted().as_ref())?,
        inheritable: set(wanted.inheritable().as_ref())?,
    };
    set_capabilities(None, sets)?;
    clear_ambient_capability_set()?;
    for one in set(wanted.ambient().as_ref())?.iter() {
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

fn set(names: Option<&Capabilities>) -> io::Result<CapabilitySet> {
    let mut all = CapabilitySet::empty();
    for name in names.into_iter().flatten() {
        let name = name.to_string();
        all |= CapabilitySet::from_name(&name).ok_or_else(|| {
            let why = format!("{name} is not the name of a capability");
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Capability;

    use super::*;

    #[test]
    fn the_first_and_the_last_capability_and_the_oddly_named_are_known() {
        use Capability::{AuditRead, Bpf, CheckpointRestore, Chown, SysPtrace};
        let names = [Chown, SysPtrace, AuditRead, Bpf, CheckpointRestore].into();
        assert_eq!(set(Some(&names)).unwrap().bits(), 1 | 1 << 19 | 1 << 37 | 1 << 39 | 1 << 40);
        assert_eq!(set(None).unwrap(), CapabilitySet::empty());
    }
}
