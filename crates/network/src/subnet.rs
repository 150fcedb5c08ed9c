//! Subnets, the addresses in them that a pod may have, and the MAC addresses that go with those.
//! Pure arithmetic: which address is free is `claims`' business.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// How many addresses of one subnet are ever handed out: more than a node has room for pods, and
/// few enough to count in 32 bits however wide an IPv6 subnet is.
const MOST: u32 = 1 << 24;

/// Text was not a subnet that pods can live in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a subnet for pods: {why}")]
pub struct BadSubnet {
    text: String,
    why: String,
}

/// A range of addresses for pods, such as `10.88.0.0/16` or `fd00:88::/64`. Its first address is the
/// gateway, and pods' addresses begin after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The gateway: the bridge's own address in this subnet.
    pub fn gateway(&self) -> Address {
        self.address(self.plus(1))
    }

    /// Whether `ip` lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.network.is_ipv4() == ip.is_ipv4()
            && (bits(ip) ^ bits(self.network)) & !self.host_mask() == 0
    }

    /// Whether it has an address in common with `other`.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Whether its addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.network.is_ipv4()
    }

    /// The subnet that `ip`, whose first `prefix` bits are its network, lies in.
    pub(crate) fn around(ip: IpAddr, prefix: u8) -> Subnet {
        let mask = host_mask(ip.is_ipv4(), prefix);
        Subnet { network: of_bits(ip.is_ipv4(), bits(ip) & !mask), prefix }
    }

    /// How many addresses it has for pods.
    pub(crate) fn size(&self) -> u32 {
        // The network's own address and the gateway are none, nor is an IPv4 broadcast address.
        let taken = if self.is_ipv4() { 2 } else { 1 };
        u32::try_from(self.host_mask() - taken).unwrap_or(MOST).min(MOST)
    }

    /// The address for pods number `index`, counted from 0 and below [`Subnet::size`].
    pub(crate) fn nth(&self, index: u32) -> IpAddr {
        self.plus(u128::from(index) + 2)
    }

    pub(crate) fn address(&self, ip: IpAddr) -> Address {
        Address { ip, prefix: self.prefix }
    }

    fn plus(&self, offset: u128) -> IpAddr {
        of_bits(self.is_ipv4(), bits(self.network) + offset)
    }

    fn host_mask(&self) -> u128 {
        host_mask(self.is_ipv4(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Subnet, BadSubnet> {
        let bad = |why: &str| BadSubnet { text: text.to_owned(), why: why.to_owned() };
        let (ip, prefix) = text.split_once('/').ok_or_else(|| bad("it has no /prefix length"))?;
        let network: IpAddr = ip.parse().map_err(|_| bad("its address is not one"))?;
        let prefix = length(prefix).ok_or_else(|| bad("its prefix length is not a number"))?;
        let allowed = if network.is_ipv4() { 8..=30 } else { 48..=126 };
        if !allowed.contains(&prefix) {
            let (least, most) = allowed.into_inner();
            return Err(bad(&format!("a prefix length here is {least} to {most}")));
        }
        let subnet = Subnet::around(network, prefix);
        if subnet.network != network {
            return Err(bad(&format!("the address has host bits set; write {subnet}")));
        }
        if is_special(network) {
            return Err(bad("these addresses have another meaning; take private ones"));
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Subnet {
    type Error = BadSubnet;

    fn try_from(text: String) -> Result<Subnet, BadSubnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// An interface's address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How many leading bits of it are the network.
    pub prefix: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The MAC address for the holder of `ip`. It follows from the address so that neighbours which
    /// remember an earlier pod at that address are right about the next one too.
    pub fn of(ip: IpAddr) -> Mac {
        let [.., a, b, c, d] = bits(ip).to_be_bytes();
        Mac([0x0a, 0x58, a, b, c, d])
    }
}

/// Text was not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address")]
pub struct BadMac(String);

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Mac, BadMac> {
        let bytes: Vec<u8> = text.split(':').filter_map(octet).collect();
        match <[u8; 6]>::try_from(bytes) {
            Ok(mac) if Mac(mac).to_string() == text => Ok(Mac(mac)),
            _ => Err(BadMac(text)),
        }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn octet(text: &str) -> Option<u8> {
    u8::from_str_radix(text, 16).ok()
}

/// A prefix length in digits only: `parse` alone would take `+8` as well.
fn length(text: &str) -> Option<u8> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first == 0 || first == 127 || first >= 224 || ip.is_link_local()
        }
        IpAddr::V6(ip) => {
            ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4().is_some()
                || ip.is_unspecified()
        }
    }
}

fn host_mask(ipv4: bool, prefix: u8) -> u128 {
    let width = if ipv4 { 32 } else { 128 };
    let host = width - u32::from(prefix).min(width);
    u128::MAX.checked_shr(128 - host).unwrap_or(0)
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn of_bits(ipv4: bool, bits: u128) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if ipv4 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_subnet_keeps_its_own_address_gateway_and_broadcast_from_pods() {
        let small = subnet("10.1.2.8/29");
        assert_eq!(small.gateway().to_string(), "10.1.2.9/29");
        let all: Vec<String> = (0..small.size()).map(|i| small.nth(i).to_string()).collect();
        assert_eq!(all, ["10.1.2.10", "10.1.2.11", "10.1.2.12", "10.1.2.13", "10.1.2.14"]);
        assert_eq!(subnet("10.88.0.0/16").size(), 65_533);
        assert_eq!(subnet("10.88.0.0/30").size(), 1);
        assert_eq!(subnet("fd00::/64").size(), MOST);
        assert_eq!(subnet("fd00::/126").size(), 2);
        assert_eq!(subnet("fd00:88::/64").nth(0).to_string(), "fd00:88::2");
    }

    #[test]
    fn what_is_not_a_subnet_for_pods_is_refused_with_a_reason() {
        for (text, why) in [
            ("10.88.0.0", "no /prefix"),
            ("10.88.0.5/16", "write 10.88.0.0/16"),
            ("10.88.0.0/31", "8 to 30"),
            ("10.88.0.0/+16", "not a number"),
            ("fd00::/127", "48 to 126"),
            ("fd00::/32", "48 to 126"),
            ("127.0.0.0/8", "another meaning"),
            ("224.0.0.0/8", "another meaning"),
            ("169.254.0.0/16", "another meaning"),
            ("fe80::/64", "another meaning"),
            ("::/64", "another meaning"),
            ("ten/8", "address is not one"),
        ] {
            let said = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        let wide = subnet("10.0.0.0/8");
        assert!(wide.overlaps(&subnet("10.88.0.0/16")) && subnet("10.88.0.0/16").overlaps(&wide));
        assert!(!subnet("10.88.0.0/16").overlaps(&subnet("10.89.0.0/16")));
        assert!(!subnet("fd00::/64").overlaps(&wide));
    }

    #[test]
    fn a_mac_address_follows_from_the_address_and_survives_text() {
        let mac = Mac::of("10.88.0.7".parse().unwrap());
        assert_eq!(mac.to_string(), "0a:58:0a:58:00:07");
        assert_eq!(Mac::try_from(mac.to_string()), Ok(mac));
        assert!(Mac::try_from("0a:58:0a:58:00".to_owned()).is_err());
        assert!(Mac::try_from("0a:58:0a:58:00:07:zz".to_owned()).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_subnet_or_refused(text in ".{0,40}") {
            if let Ok(subnet) = text.parse::<Subnet>() {
                prop_assert_eq!(subnet.to_string().parse(), Ok(subnet));
            }
        }

        #[test]
        fn every_address_of_a_subnet_lies_in_it_and_is_not_reserved(
            base in any::<u32>(), prefix in 8u8..=30, pick in any::<u32>(),
        ) {
            let around = Subnet::around(Ipv4Addr::from_bits(base).into(), prefix);
            let Ok(subnet) = around.to_string().parse::<Subnet>() else { return Ok(()) };
            let ip = subnet.nth(pick % subnet.size());
            prop_assert!(subnet.contains(ip));
            prop_assert_ne!(ip, subnet.network);
            prop_assert_ne!(ip, subnet.gateway().ip);
            prop_assert_ne!(bits(ip) & subnet.host_mask(), subnet.host_mask());
        }

        #[test]
        fn text_like_a_subnet_never_panics(
            a in any::<u8>(), b in any::<u8>(), prefix in any::<u8>(), v6 in any::<u128>(),
        ) {
            let _ = format!("{a}.{b}.0.0/{prefix}").parse::<Subnet>();
            let _ = format!("{}/{prefix}", Ipv6Addr::from_bits(v6)).parse::<Subnet>();
        }
    }
}
