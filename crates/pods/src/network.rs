//! How a pod's network is chosen, and what is asked of it.

use std::{collections::BTreeMap, path::Path};

use ::network::HostPort;
use cni::Attachment;
use oci::Namespace;

use crate::{
    Error,
    host::Host,
    plan::{PodPlan, Port, Protocol, Sharing},
    pod::{Network, PodRecord},
};

/// The interface that a pod finds itself on.
const INTERFACE: &str = "eth0";

/// The sysctls of the pod's network namespace: those that it asks for, over those that it would have.
pub(crate) fn sysctls(
    defaults: BTreeMap<String, String>,
    asked: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = defaults;
    all.extend(
        asked.iter().filter(|(key, _)| is_of_network(key)).map(|(k, v)| (k.clone(), v.clone())),
    );
    all
}

/// The sysctls that the sandbox is to set.
pub(crate) fn of_others(asked: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut others = asked.clone();
    others.retain(|key, _| !is_of_network(key));
    others
}

fn is_of_network(name: &str) -> bool {
    name.starts_with("net.")
}

/// Only what is the pod's own may be set.
pub(crate) fn check_sysctls(plan: &PodPlan) -> Result<(), Error> {
    let own_unless = |host: bool| if host { Namespace::Host } else { Namespace::Own };
    let network = own_unless(plan.namespaces.host_network());
    let ipc = own_unless(plan.namespaces.ipc == Sharing::Node);
    Ok(oci::check_sysctls(&plan.sysctls, &network, &ipc)?)
}

/// The network that the pod is to have. Addresses of the built-in bridge are reserved here; the lease
/// is recorded next, and one that was not is swept at the next start.
pub(crate) async fn plan(host: &Host, pod: &PodRecord, netns: &Path) -> Result<Network, Error> {
    let none = match host.cni.default() {
        Ok(list) => {
            let attachment = Attachment::plan(&list, pod.id.as_str(), netns, INTERFACE)?;
            return Ok(Network::Cni(vec![furnish(attachment, pod)?]));
        }
        Err(none) => none,
    };
    match &host.bridge {
        Some(bridge) => {
            let ports = pod.plan.ports.iter().map(host_port).collect();
            Ok(Network::Bridge(bridge.reserve(&pod.id, ports).await?))
        }
        None => Err(Error::Refused { class: names::Class::Unavailable, why: none.to_string() }),
    }
}

fn furnish(attachment: Attachment, pod: &PodRecord) -> Result<Attachment, Error> {
    let PodPlan { name, dns, annotations, ports, .. } = &pod.plan;
    let args = cni::pod_args(&name.namespace, &name.name, &name.uid, pod.id.as_str());
    let mut attachment = attachment
        .with_args(args)?
        .with_capability(cni::pod_annotations(annotations))
        .with_capability(cni::cgroup_path(&pod.cgroup.to_string_lossy()));
    if !ports.is_empty() {
        let mappings: Vec<_> = ports.iter().map(port_mapping).collect();
        attachment = attachment.with_capability(cni::port_mappings(&mappings));
    }
    if let Some(dns) = dns {
        let capability = cni::dns(&dns.servers, &dns.searches, &dns.options);
        attachment = attachment.with_capability(capability);
    }
    let bandwidth = cni::bandwidth(annotations)
        .map_err(|bad| Error::rejected("config.annotations", bad.to_string()))?;
    Ok(bandwidth.into_iter().fold(attachment, Attachment::with_capability))
}

fn port_mapping(port: &Port) -> cni::PortMapping {
    cni::PortMapping {
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: match port.protocol {
            Protocol::Tcp => cni::Protocol::Tcp,
            Protocol::Udp => cni::Protocol::Udp,
            Protocol::Sctp => cni::Protocol::Sctp,
        },
        host_ip: port.host_ip,
    }
}

fn host_port(port: &Port) -> HostPort {
    HostPort {
        protocol: match port.protocol {
            Protocol::Tcp => ::network::Protocol::Tcp,
            Protocol::Udp => ::network::Protocol::Udp,
            Protocol::Sctp => ::network::Protocol::Sctp,
        },
        host_ip: port.host_ip,
        host_port: port.host_port.get(),
        container_port: port.container_port.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_overrule_the_sysctls_that_all_have() {
        let asked = [("net.ipv4.ip_unprivileged_port_start", "1024"), ("kernel.sem", "1")];
        let asked = asked.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let all = sysctls(oci::default_sysctls(false), &asked);
        assert_eq!(all["net.ipv4.ip_unprivileged_port_start"], "1024");
        assert_eq!(all.len(), 2);
    }
}
