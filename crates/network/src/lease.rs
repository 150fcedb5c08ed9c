//! What a pod holds of the network, as values: its addresses and host ports. Nothing here touches
//! the host; where leases are kept is `claims`' business.

use std::{fmt, net::IpAddr, str::FromStr};

use names::PodId;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    subnet::{Address, Mac},
};

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP headers (IANA protocol numbers).
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Protocol, ()> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(()),
        }
    }
}

/// Where on the host a port is held. No address means all of the host's, IPv4 and IPv6 alike;
/// `0.0.0.0` means all of its IPv4 ones and `::` all of its IPv6 ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Door {
    pub protocol: Protocol,
    pub port: u16,
    pub ip: Option<IpAddr>,
}

impl Door {
    /// Whether no two pods could hold both.
    pub fn clashes(&self, other: &Door) -> bool {
        (self.protocol, self.port) == (other.protocol, other.port)
            && match (self.ip, other.ip) {
                (Some(a), Some(b)) => {
                    let wide = a.is_unspecified() || b.is_unspecified();
                    a == b || (wide && a.is_ipv4() == b.is_ipv4())
                }
                _ => true,
            }
    }

    /// Whether it is open to IPv4 (or else IPv6) packets.
    pub fn takes(&self, ipv4: bool) -> bool {
        self.ip.is_none_or(|ip| ip.is_ipv4() == ipv4)
    }

    /// The one address that it is bound to.
    pub fn bound(&self) -> Option<IpAddr> {
        self.ip.filter(|ip| !ip.is_unspecified())
    }
}

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// The protocol of both ports.
    pub protocol: Protocol,
    /// The address of the host that it is held at; none for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port of the host, 1 to 65535.
    pub host_port: u16,
    /// The port of the pod, 1 to 65535.
    pub container_port: u16,
}

impl HostPort {
    pub(crate) fn door(&self) -> Door {
        Door { protocol: self.protocol, port: self.host_port, ip: self.host_ip }
    }

    /// Refuses what can never work, before anything is made. `ipv4` and `ipv6` say which addresses
    /// pods have here.
    pub(crate) fn check(&self, ipv4: bool, ipv6: bool) -> Result<(), Error> {
        let why = match self.host_ip {
            _ if self.host_port == 0 || self.container_port == 0 => "a port is 1 to 65535",
            Some(ip) if ip.is_multicast() => "its address is a multicast one",
            Some(IpAddr::V6(ip)) if ip.is_loopback() => {
                "packets to ::1 cannot leave the host's loopback; use 127.0.0.1"
            }
            Some(IpAddr::V4(_)) if !ipv4 => "its address is IPv4 and pods have none here",
            Some(IpAddr::V6(_)) if !ipv6 => "its address is IPv6 and pods have none here",
            _ => return Ok(()),
        };
        Err(Error::BadPort { port: *self, why })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}/{}", self.host_port, self.protocol)
    }
}

/// What a pod holds of the network. Recorded by the pod before it is attached, so that it can be
/// detached from the record alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The pod's addresses, one for each subnet, in the order of the configuration.
    pub addresses: Vec<Address>,
    /// The gateways, in the same order.
    pub gateways: Vec<IpAddr>,
    /// The host's end of the pod's link.
    pub host_if: String,
    /// The MAC address of the pod's `eth0`.
    pub mac: Mac,
    /// The host ports that lead to the pod.
    pub ports: Vec<HostPort>,
}

/// The name of the host's end of a pod's link: the id as people's tables show it, so that one is
/// found from the other. As long as an interface's name may be.
pub(crate) fn host_if(pod: &PodId) -> String {
    format!("pb{}", pod.short())
}

/// Whether an interface's name is one that [`host_if`] gives.
pub(crate) fn is_host_if(name: &str) -> bool {
    name.strip_prefix("pb").is_some_and(|digits| {
        digits.len() == 13 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(ip: Option<&str>) -> Door {
        Door { protocol: Protocol::Tcp, port: 80, ip: ip.map(|ip| ip.parse().unwrap()) }
    }

    #[test]
    fn doors_clash_when_a_packet_could_take_either() {
        let clash = |a, b| door(a).clashes(&door(b)) && door(b).clashes(&door(a));
        assert!(clash(None, None) && clash(None, Some("10.0.0.1")) && clash(None, Some("fd00::1")));
        assert!(clash(Some("0.0.0.0"), Some("10.0.0.1")) && clash(Some("::"), Some("fd00::1")));
        assert!(clash(Some("10.0.0.1"), Some("10.0.0.1")));
        assert!(!clash(Some("10.0.0.1"), Some("10.0.0.2")));
        assert!(!clash(Some("0.0.0.0"), Some("::")) && !clash(Some("0.0.0.0"), Some("fd00::1")));
        let udp = Door { protocol: Protocol::Udp, ..door(None) };
        assert!(!udp.clashes(&door(None)));
    }

    #[test]
    fn a_port_that_can_never_be_is_refused() {
        let port = |ip: Option<&str>, host_port, container_port| HostPort {
            protocol: Protocol::Tcp,
            host_ip: ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port,
        };
        assert!(port(None, 80, 8080).check(true, false).is_ok());
        assert!(port(Some("127.0.0.1"), 80, 80).check(true, false).is_ok());
        for (port, ipv4, ipv6) in [
            (port(None, 0, 80), true, true),
            (port(None, 80, 0), true, true),
            (port(Some("::1"), 80, 80), true, true),
            (port(Some("224.0.0.1"), 80, 80), true, true),
            (port(Some("fd00::1"), 80, 80), true, false),
            (port(Some("10.0.0.1"), 80, 80), false, true),
        ] {
            assert!(matches!(port.check(ipv4, ipv6), Err(Error::BadPort { .. })), "{port}");
        }
    }

    #[test]
    fn a_lease_survives_a_record() {
        let lease = Lease {
            addresses: vec![Address { ip: "10.88.0.2".parse().unwrap(), prefix: 16 }],
            gateways: vec!["10.88.0.1".parse().unwrap()],
            host_if: host_if(&PodId::from_bytes([0xab; 32])),
            mac: Mac::of("10.88.0.2".parse().unwrap()),
            ports: vec![HostPort {
                protocol: Protocol::Udp,
                host_ip: Some("fd00::1".parse().unwrap()),
                host_port: 53,
                container_port: 5353,
            }],
        };
        assert_eq!(lease.host_if.len(), 15);
        let text = serde_json::to_string(&lease).unwrap();
        assert_eq!(serde_json::from_str::<Lease>(&text).unwrap(), lease);
        assert_eq!(lease.ports[0].to_string(), "[fd00::1]:53/udp");
    }
}
