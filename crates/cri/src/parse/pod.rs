//! `PodSandboxConfig`, made into a plan.

use std::{net::IpAddr, num::NonZeroU16, path::PathBuf};

use cri_proto::v1;
use pods::plan::{Dns, PodName, PodNamespaces, PodPlan, PodSecurity, Port, Protocol, Sharing};

use super::{Rejected, absolute, line, lines, needed, rejected, security, word};

/// The longest host name that the kernel takes.
const LONGEST_HOSTNAME: usize = 64;

/// The pod that the request asks for.
pub fn pod(config: v1::PodSandboxConfig, handler: String) -> Result<PodPlan, Rejected> {
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let namespaces = namespaces(context.namespace_options.clone().unwrap_or_default())?;
    let hostname = hostname(config.hostname, &namespaces)?;
    Ok(PodPlan {
        name: name(needed(config.metadata, "config.metadata")?)?,
        handler,
        hostname,
        log_directory: match config.log_directory.as_str() {
            "" => None,
            path => Some(absolute(path, "config.log_directory")?),
        },
        dns: config.dns_config.map(dns).transpose()?,
        ports: ports(config.port_mappings)?,
        labels: config.labels,
        annotations: config.annotations,
        namespaces,
        sysctls: sysctls(linux.sysctls)?,
        cgroup_parent: cgroup_parent(&linux.cgroup_parent)?,
        overhead: security::resources(linux.overhead.unwrap_or_default(), "config.linux.overhead")?,
        resources: security::resources(
            linux.resources.unwrap_or_default(),
            "config.linux.resources",
        )?,
        security: security(context)?,
    })
}

/// A path, or the name of a slice of systemd's. Which of them is right is the cgroup driver's to say.
fn cgroup_parent(text: &str) -> Result<Option<PathBuf>, Rejected> {
    match text {
        "" => Ok(None),
        name if !name.contains('/') && name.ends_with(".slice") => {
            Ok(Some(word(name.to_owned(), CGROUP_PARENT)?.into()))
        }
        path => absolute(path, CGROUP_PARENT).map(Some),
    }
}

const CGROUP_PARENT: &str = "config.linux.cgroup_parent";

fn name(metadata: v1::PodSandboxMetadata) -> Result<PodName, Rejected> {
    Ok(PodName {
        namespace: word(metadata.namespace, "config.metadata.namespace")?,
        name: word(metadata.name, "config.metadata.name")?,
        uid: word(metadata.uid, "config.metadata.uid")?,
        attempt: metadata.attempt,
    })
}

fn hostname(hostname: String, namespaces: &PodNamespaces) -> Result<String, Rejected> {
    let field = "config.hostname";
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if hostname.is_empty() || namespaces.host_network() {
        return Ok(String::new());
    }
    if hostname.len() > LONGEST_HOSTNAME {
        return Err(rejected(field, format!("is longer than {LONGEST_HOSTNAME} characters")));
    }
    if !hostname.split('.').all(label) {
        return Err(rejected(field, format!("{hostname:?} is not a host name")));
    }
    Ok(hostname)
}

fn dns(config: v1::DnsConfig) -> Result<Dns, Rejected> {
    Ok(Dns {
        servers: lines(config.servers, "config.dns_config.servers")?,
        searches: lines(config.searches, "config.dns_config.searches")?,
        options: lines(config.options, "config.dns_config.options")?,
    })
}

/// Mappings without a host port ask for nothing.
fn ports(mappings: Vec<v1::PortMapping>) -> Result<Vec<Port>, Rejected> {
    let wanted = mappings.into_iter().enumerate().filter(|(_, mapping)| mapping.host_port != 0);
    wanted.map(|(n, mapping)| port(&mapping, &format!("config.port_mappings[{n}]"))).collect()
}

fn port(mapping: &v1::PortMapping, field: &str) -> Result<Port, Rejected> {
    let number = |port: i32, name: &str| {
        u16::try_from(port)
            .ok()
            .and_then(NonZeroU16::new)
            .ok_or_else(|| rejected(format!("{field}.{name}"), format!("{port} is not a port")))
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse::<IpAddr>().map_err(|_| {
            rejected(format!("{field}.host_ip"), format!("{text:?} is not an address"))
        })?),
    };
    Ok(Port {
        protocol: match v1::Protocol::try_from(mapping.protocol) {
            Ok(v1::Protocol::Tcp) => Protocol::Tcp,
            Ok(v1::Protocol::Udp) => Protocol::Udp,
            Ok(v1::Protocol::Sctp) => Protocol::Sctp,
            Err(_) => return Err(rejected(format!("{field}.protocol"), "is not a protocol")),
        },
        container_port: number(mapping.container_port, "container_port")?,
        host_port: number(mapping.host_port, "host_port")?,
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
    })
}

fn namespaces(options: v1::NamespaceOption) -> Result<PodNamespaces, Rejected> {
    let field = "config.linux.security_context.namespace_options";
    let mode = |number: i32, name: &str, allowed: &[Sharing]| {
        security::sharing(number, "")
            .filter(|mode| allowed.contains(mode))
            .ok_or_else(|| rejected(format!("{field}.{name}"), "is not a mode that a pod can have"))
    };
    let namespaces = PodNamespaces {
        network: mode(options.network, "network", &[Sharing::Pod, Sharing::Node])?,
        pid: mode(options.pid, "pid", &[Sharing::Pod, Sharing::Container, Sharing::Node])?,
        ipc: mode(options.ipc, "ipc", &[Sharing::Pod, Sharing::Node])?,
        user: security::user_namespace(options.userns_options, field)?,
    };
    let shares = [&namespaces.pid, &namespaces.ipc].contains(&&Sharing::Node);
    match namespaces.user.is_some() && shares {
        // It would be nobody among the node's processes, and could not even mount /proc.
        true => Err(rejected(
            format!("{field}.userns_options"),
            "needs processes and ipc that are not the node's",
        )),
        false => Ok(namespaces),
    }
}

fn sysctls(
    given: std::collections::BTreeMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>, Rejected> {
    let check = |(key, value): (String, String)| {
        let field = format!("config.linux.sysctls[{key:?}]");
        // CVE-2022-0811: nothing of a value may be read as more than a value.
        Ok((word(key, &field)?, line(value, &field)?))
    };
    given.into_iter().map(check).collect()
}

fn security(context: v1::LinuxSandboxSecurityContext) -> Result<PodSecurity, Rejected> {
    let field = "config.linux.security_context";
    security::group_needs_user(&context.run_as_user, &context.run_as_group, "", field)?;
    #[expect(deprecated, reason = "kubelets of old and critest still send it")]
    let seccomp_path = context.seccomp_profile_path;
    Ok(PodSecurity {
        run_as_user: context.run_as_user.map(|id| id.value),
        run_as_group: context.run_as_group.map(|id| id.value),
        supplemental_groups: context.supplemental_groups,
        privileged: context.privileged,
        readonly_rootfs: context.readonly_rootfs,
        seccomp: security::seccomp(context.seccomp, &seccomp_path, field)?,
        apparmor: security::apparmor(context.apparmor, "", field)?,
        selinux: context.selinux_options.and_then(security::selinux),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "web".into(),
                uid: "u".into(),
                namespace: "default".into(),
                attempt: 1,
            }),
            ..Default::default()
        }
    }

    fn why(config: v1::PodSandboxConfig) -> String {
        pod(config, String::new()).unwrap_err().to_string()
    }

    #[test]
    fn the_smallest_request_is_a_pod_with_its_own_network() {
        let plan = pod(config(), String::new()).unwrap();
        assert_eq!(plan.namespaces.network, Sharing::Pod);
        assert_eq!(plan.name.attempt, 1);
        assert_eq!(plan, pod(config(), String::new()).unwrap());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        assert_eq!(why(v1::PodSandboxConfig::default()), "config.metadata: is missing");
        let mut bad = config();
        bad.hostname = "a b".into();
        assert!(why(bad).starts_with("config.hostname: "));
        let mut bad = config();
        bad.log_directory = "logs".into();
        assert!(why(bad).starts_with("config.log_directory: must be an absolute path"));
        let mut bad = config();
        bad.dns_config = Some(v1::DnsConfig {
            servers: vec!["1.1.1.1\nnameserver 6.6.6.6".into()],
            ..Default::default()
        });
        assert_eq!(why(bad), "config.dns_config.servers[0]: has a control character");
        let mut bad = config();
        bad.port_mappings =
            vec![v1::PortMapping { host_port: 70_000, container_port: 80, ..Default::default() }];
        assert_eq!(why(bad), "config.port_mappings[0].host_port: 70000 is not a port");
        let mut bad = config();
        bad.metadata.as_mut().unwrap().name = "a\nb".into();
        assert_eq!(why(bad), "config.metadata.name: has a control character");
    }

    #[test]
    fn a_group_without_a_user_is_refused() {
        let mut bad = config();
        bad.linux = Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                run_as_group: Some(v1::Int64Value { value: 5 }),
                ..Default::default()
            }),
            ..Default::default()
        });
        assert!(why(bad).contains("run_as_group"));
    }

    #[test]
    fn ports_without_a_host_port_ask_for_nothing() {
        let mut some = config();
        some.port_mappings = vec![v1::PortMapping { container_port: 80, ..Default::default() }];
        assert!(pod(some, String::new()).unwrap().ports.is_empty());
    }

    #[test]
    fn a_cgroup_is_named_by_a_path_or_by_a_slice() {
        let parent = |text: &str| cgroup_parent(text).map_err(|rejected| rejected.to_string());
        assert_eq!(parent(""), Ok(None));
        assert_eq!(parent("/kubepods/x"), Ok(Some("/kubepods/x".into())));
        assert_eq!(parent("a-b.slice"), Ok(Some("a-b.slice".into())));
        for bad in ["kubepods", "a.slice/b.slice", "../x.slice", "/../a.slice", "a\n.slice"] {
            assert!(parent(bad).unwrap_err().contains(CGROUP_PARENT), "{bad}");
        }
    }
}
