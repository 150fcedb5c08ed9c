//! The places where libcontainer 0.7 reads a config otherwise than runc does.

use oci_spec::runtime::Spec;

use crate::seccomp;

/// Makes a config of ours one that libcontainer reads as it was meant. A config for any other
/// runtime must not go through this.
pub fn for_libcontainer(spec: &mut Spec) {
    // To say "no" here makes it load the filter of system calls late; saying nothing does not.
    if let Some(process) = spec.process_mut()
        && process.no_new_privileges() == Some(false)
    {
        process.set_no_new_privileges(None);
    }
    let Some(linux) = spec.linux_mut() else { return };
    if let Some(filter) = linux.seccomp().as_ref().map(seccomp::for_libcontainer) {
        linux.set_seccomp(Some(filter));
    }
    // It knows only the names without the r, takes them all recursively, and heeds no mount's own:
    // without one, later mounts of the host would be seen in mounts that are private.
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or("private");
    let propagation = propagation.trim_start_matches('r').to_owned();
    linux.set_rootfs_propagation(Some(propagation));
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Linux;

    use super::*;

    #[test]
    fn propagation_has_the_names_that_libcontainer_knows() {
        let names = [(Some("rshared"), "shared"), (Some("rslave"), "slave"), (None, "private")];
        for (ours, theirs) in names {
            let mut linux = Linux::default();
            linux.set_rootfs_propagation(ours.map(str::to_owned));
            let mut spec = Spec::default();
            spec.set_linux(Some(linux));
            for_libcontainer(&mut spec);
            let told = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().clone());
            assert_eq!(told.as_deref(), Some(theirs));
        }
    }
}
