//! Which kernel settings a pod may have: those that belong to a namespace that is its own.

use names::Labels;

use crate::{plan::Namespace, rejected::Rejected};

/// Prefixes and names of the settings of the IPC namespace.
const OF_IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];
const OF_NETWORK: &str = "net.";

/// Checks every setting against the namespaces that the pod has to itself.
///
/// # Errors
/// A setting is not known to belong to a namespace, or belongs to one of the host's (it would
/// change the node), or its value could be read as more than a value.
pub fn check_sysctls(
    sysctls: &Labels,
    network: &Namespace,
    ipc: &Namespace,
) -> Result<(), Rejected> {
    for (name, value) in sysctls {
        let refuse = |why: String| Err(Rejected::new(format!("config.linux.sysctls[{name}]"), why));
        if !is_name(name) {
            return refuse("is not a name of letters, digits, - and _, joined by dots".to_owned());
        }
        let (space, from) = if name.starts_with(OF_NETWORK) {
            ("network", network)
        } else if name == "kernel.sem" || OF_IPC.iter().any(|prefix| name.starts_with(prefix)) {
            ("IPC", ipc)
        } else {
            return refuse("is a setting of the whole node, not of a pod".to_owned());
        };
        if *from == Namespace::Host {
            return refuse(format!("would change the node: the pod is in its {space} namespace"));
        }
        if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            return refuse("has a value that is not plain text in one line".to_owned());
        }
    }
    Ok(())
}

/// A name becomes a path below /proc/sys, each dot a slash.
fn is_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    name.split('.').all(|part| !part.is_empty() && part.bytes().all(word))
}

/// Settings for a pod with a network of its own, where the request has none: ports below 1024
/// and ICMP sockets for everyone, since both reach no further than the pod. (As containerd 2 does.)
pub fn default_sysctls(in_user_namespace: bool) -> Labels {
    let mut defaults = Labels::new();
    defaults.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    // A user namespace does not map the whole range, and the kernel refuses what it cannot map.
    if !in_user_namespace {
        defaults.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    defaults
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(name: &str, value: &str, network: &Namespace, ipc: &Namespace) -> bool {
        check_sysctls(&[(name.to_owned(), value.to_owned())].into(), network, ipc).is_ok()
    }

    #[test]
    fn a_setting_is_allowed_only_in_a_namespace_of_the_pods_own() {
        use Namespace::{Host, Own};
        for name in ["kernel.shm_rmid_forced", "kernel.msgmax", "kernel.sem", "fs.mqueue.msg_max"] {
            assert!(check(name, "1", &Host, &Own), "{name}");
            assert!(!check(name, "1", &Own, &Host), "{name}");
        }
        assert!(check("net.ipv4.ping_group_range", "0 2147483647", &Own, &Host));
        assert!(!check("net.ipv4.ip_forward", "1", &Host, &Own));
    }

    #[test]
    fn settings_of_the_node_and_paths_are_refused() {
        use Namespace::Own;
        let bad = [
            "kernel.core_pattern",
            "kernel.hostname",
            "kernel.semx",
            "vm.swappiness",
            "fs.file-max",
            "net/ipv4/ip_forward",
            "net..ipv4",
            "net.ipv4/../../kernel.core_pattern",
            "net",
            "",
            "net.ipv4.conf.all.\n",
        ];
        for name in bad {
            assert!(!check(name, "1", &Own, &Own), "{name:?}");
        }
        for value in ["1\n2", "1\0", "é", "|/x\r"] {
            assert!(!check("net.ipv4.ip_forward", value, &Own, &Own), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_allowed_name_leaves_its_part_of_proc_sys(name in "(net|kernel|fs|[a-z./]){1,8}") {
            if check(&name, "1", &Namespace::Own, &Namespace::Own) {
                let path = name.replace('.', "/");
                prop_assert!(!path.contains("//") && !path.contains(".."));
                let below = ["net/", "kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"];
                prop_assert!(below.iter().any(|above| path.starts_with(above)));
            }
        }
    }
}
