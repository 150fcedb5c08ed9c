//! The well-known capabilities, in the words that plugins understand (CNI's CONVENTIONS.md). Each
//! function gives the name and the value for [`crate::Attachment::with_capability`].

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use serde_json::{Map, Value, json};

use crate::quantity;

/// A port of the host that leads to one of the sandbox. Neither can be 0: the portmap plugin refuses
/// that on DEL as well, and the pod could never be detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    pub host_port: NonZeroU16,
    pub container_port: NonZeroU16,
    pub protocol: Protocol,
    /// The host's address to listen at; all of them if none is given.
    pub host_ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

pub fn port_mappings(mappings: &[PortMapping]) -> (&'static str, Value) {
    let all = mappings.iter().map(|mapping| {
        let mut one = json!({
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": mapping.protocol.as_str(),
        });
        if let Some(ip) = mapping.host_ip {
            one["hostIP"] = json!(ip);
        }
        one
    });
    ("portMappings", all.collect())
}

pub fn dns(servers: &[String], searches: &[String], options: &[String]) -> (&'static str, Value) {
    ("dns", json!({ "servers": servers, "searches": searches, "options": options }))
}

/// Addresses to be had, each with or without a prefix length.
pub fn ips(wanted: &[String]) -> (&'static str, Value) {
    ("ips", json!(wanted))
}

pub fn mac(wanted: &str) -> (&'static str, Value) {
    ("mac", json!(wanted))
}

/// The pod's cgroup, for plugins that sort traffic by it.
pub fn cgroup_path(path: &str) -> (&'static str, Value) {
    ("cgroupPath", json!(path))
}

pub fn pod_annotations(annotations: &BTreeMap<String, String>) -> (&'static str, Value) {
    ("io.kubernetes.cri.pod-annotations", json!(annotations))
}

/// A pod asks for a bandwidth that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation} is {found:?}, but must be a rate from 1k to 1P in bits a second")]
pub struct BadBandwidth {
    pub annotation: &'static str,
    pub found: String,
}

/// The bandwidth that a pod's annotations ask for (`kubernetes.io/ingress-bandwidth` and
/// `kubernetes.io/egress-bandwidth`, quantities in bits a second), if they do.
///
/// # Errors
/// If one is not a quantity, or not between 1k and 1P: the same limits as the kubelet's.
pub fn bandwidth(
    annotations: &BTreeMap<String, String>,
) -> Result<Option<(&'static str, Value)>, BadBandwidth> {
    let mut wanted = Map::new();
    for (annotation, rate, burst) in [
        ("kubernetes.io/ingress-bandwidth", "ingressRate", "ingressBurst"),
        ("kubernetes.io/egress-bandwidth", "egressRate", "egressBurst"),
    ] {
        if let Some(text) = annotations.get(annotation) {
            wanted.insert(rate.to_owned(), json!(bits(annotation, text)?));
            // Kubernetes knows no burst; this is the greatest that the plugin takes.
            wanted.insert(burst.to_owned(), json!(u32::MAX));
        }
    }
    Ok((!wanted.is_empty()).then_some(("bandwidth", Value::Object(wanted))))
}

fn bits(annotation: &'static str, text: &str) -> Result<u64, BadBandwidth> {
    const LEAST: i128 = 1_000;
    const MOST: i128 = 1_000_000_000_000_000;
    quantity::parse(text)
        .filter(|bits| (LEAST..=MOST).contains(bits))
        .and_then(|bits| u64::try_from(bits).ok())
        .ok_or_else(|| BadBandwidth { annotation, found: text.chars().take(80).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pod_that_asks_for_no_bandwidth_gets_none() {
        assert_eq!(bandwidth(&annotated(&[("a", "b")])), Ok(None));
    }

    #[test]
    fn both_directions_are_told_in_bits_a_second() {
        let asked = annotated(&[
            ("kubernetes.io/ingress-bandwidth", "10M"),
            ("kubernetes.io/egress-bandwidth", "1Ki"),
        ]);
        let wanted = json!({
            "ingressRate": 10_000_000, "ingressBurst": u32::MAX,
            "egressRate": 1024, "egressBurst": u32::MAX,
        });
        assert_eq!(bandwidth(&asked), Ok(Some(("bandwidth", wanted))));
        let asked = annotated(&[("kubernetes.io/egress-bandwidth", "1P")]);
        let (_, value) = bandwidth(&asked).unwrap().unwrap();
        assert!(value.get("ingressRate").is_none());
    }

    #[test]
    fn a_bandwidth_below_1k_or_above_1p_is_refused() {
        for text in ["999", "0", "-10M", "1001P", "2P", "fast", "", "1500m"] {
            let asked = annotated(&[("kubernetes.io/ingress-bandwidth", text)]);
            let refusal = bandwidth(&asked).unwrap_err();
            assert_eq!(
                (refusal.annotation, &*refusal.found),
                ("kubernetes.io/ingress-bandwidth", text)
            );
        }
    }

    #[test]
    fn a_port_mapping_names_the_hosts_address_only_if_there_is_one() {
        let port = |number| NonZeroU16::new(number).unwrap();
        let plain = PortMapping {
            host_port: port(8080),
            container_port: port(80),
            protocol: Protocol::Tcp,
            host_ip: None,
        };
        let bound = PortMapping { host_ip: Some([10, 0, 0, 1].into()), ..plain.clone() };
        let wanted = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "10.0.0.1"},
        ]);
        assert_eq!(port_mappings(&[plain, bound]), ("portMappings", wanted));
    }
}
