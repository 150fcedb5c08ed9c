//! How the built-in network is to be, and what of that can be refused before anything is made.

use std::{path::PathBuf, time::Duration};

use crate::{error::Error, subnet::Subnet};

/// The longest name of an interface (`IFNAMSIZ` of linux/if.h, less its zero byte).
const LONGEST: usize = 15;

/// How the built-in network is to be. Everything it makes on the host is named after `bridge`, so
/// two networks with other bridges, subnets and roots do not touch each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the bridge, up to 15 characters.
    pub bridge: String,
    /// Where pods have their addresses: one IPv4 subnet, one IPv6 subnet, or one of each. The first
    /// is the one whose address a pod is known by.
    pub subnets: Vec<Subnet>,
    /// The directory of leases. It must outlive a restart of the daemon.
    pub root: PathBuf,
    /// The MTU of pods' links, 1280 to 65535; none for the kernel's choice, 1500.
    pub mtu: Option<u32>,
    /// How long any one operation may take.
    pub deadline: Duration,
}

impl Config {
    /// The defaults: bridge `podbay0`, subnet `10.88.0.0/16`, 10 s.
    pub fn new(root: PathBuf) -> Config {
        Config {
            bridge: "podbay0".to_owned(),
            subnets: vec!["10.88.0.0/16".parse().expect("the default is a subnet")],
            root,
            mtu: None,
            deadline: Duration::from_secs(10),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !is_name(&self.bridge) {
            return Err(Error::BadBridgeName(self.bridge.clone()));
        }
        match self.mtu {
            Some(mtu) if !(1280..=65_535).contains(&mtu) => return Err(Error::BadMtu(mtu)),
            _ => {}
        }
        let count = |ipv4| self.subnets.iter().filter(|s| s.is_ipv4() == ipv4).count();
        match (count(true), count(false)) {
            (0, 0) => Err(Error::BadSubnets("there is none".to_owned())),
            (0 | 1, 0 | 1) => Ok(()),
            _ => Err(Error::BadSubnets("there may be one for IPv4 and one for IPv6".to_owned())),
        }
    }

    /// Whether pods have addresses of this kind.
    pub(crate) fn has(&self, ipv4: bool) -> bool {
        self.subnets.iter().any(|subnet| subnet.is_ipv4() == ipv4)
    }
}

/// The name goes into rules for `nft` and into paths below `/proc/sys`, where `all` and `default`
/// mean every interface.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    name.len() <= LONGEST
        && name.bytes().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !["all", "default", "lo"].contains(&name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> Config {
        Config::new(PathBuf::from("/nowhere"))
    }

    #[test]
    fn the_defaults_are_good() {
        config().check().unwrap();
        assert_eq!(config().subnets[0].to_string(), "10.88.0.0/16");
    }

    #[test]
    fn a_name_that_means_something_else_is_refused() {
        for bad in [
            "",
            "all",
            "default",
            "lo",
            "0br",
            "a/b",
            "..",
            "br.1",
            "a b",
            "a\"b",
            "sixteen-letters-",
        ] {
            let config = Config { bridge: bad.to_owned(), ..config() };
            assert!(matches!(config.check(), Err(Error::BadBridgeName(_))), "{bad}");
        }
    }

    #[test]
    fn subnets_are_one_of_each_kind_at_most() {
        let with = |subnets: &[&str]| Config {
            subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
            ..config()
        };
        assert!(with(&["fd00::/64"]).check().is_ok());
        assert!(with(&["fd00::/64", "10.0.0.0/24"]).check().is_ok());
        assert!(with(&[]).check().is_err());
        assert!(with(&["10.0.0.0/24", "10.0.1.0/24"]).check().is_err());
        assert!(Config { mtu: Some(576), ..config() }.check().is_err());
    }

    proptest! {
        #[test]
        fn a_good_name_is_safe_in_rules_and_paths(bridge in ".{0,18}") {
            if (Config { bridge: bridge.clone(), ..config() }).check().is_ok() {
                let odd = ['/', '.', '"', ' ', '\n', '{', ';'];
                prop_assert!(!bridge.contains(odd));
                prop_assert!(!bridge.is_empty() && bridge.len() <= LONGEST);
            }
        }
    }
}
