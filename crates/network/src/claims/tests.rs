//! The rules of claims, on a real directory.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::lease::Protocol;

fn pod(n: u8) -> PodId {
    PodId::from_bytes([n; 32])
}

fn tcp(host_port: u16, container_port: u16) -> HostPort {
    HostPort { protocol: Protocol::Tcp, host_ip: None, host_port, container_port }
}

fn entries(root: &Path) -> usize {
    fs::read_dir(root).map_or(0, Iterator::count)
}

#[test]
fn the_same_pod_gets_its_own_address_again_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("made/when/needed");
    let subnet: Subnet = "10.88.0.0/16".parse().unwrap();
    let mut claims = Claims::open(&root).unwrap();
    assert!(!root.exists(), "nothing is made before the first claim");
    let first = claims.claim_address(&pod(1), &subnet).unwrap();
    assert_eq!(first.to_string(), "10.88.0.2");
    assert_eq!(claims.claim_address(&pod(1), &subnet).unwrap(), first);
    claims.claim_ports(&pod(1), &[tcp(80, 8080)]).unwrap();

    let mut again = Claims::open(&root).unwrap();
    assert!(again.holds(&pod(1), first));
    assert_eq!(again.claim_address(&pod(1), &subnet).unwrap(), first);
    assert_eq!(again.ports_of(&pod(1)), [tcp(80, 8080)]);
    again.release_all_ports(&pod(1)).unwrap();
    again.release_addresses(&pod(1)).unwrap();
    again.release_addresses(&pod(1)).unwrap();
    assert_eq!(entries(&root), 0);
}

#[test]
fn an_address_given_back_is_not_the_next_one_taken() {
    let dir = tempfile::tempdir().unwrap();
    let subnet: Subnet = "10.88.0.0/29".parse().unwrap();
    let mut claims = Claims::open(&dir.path().join("leases")).unwrap();
    let seen: Vec<IpAddr> = (0..subnet.size())
        .map(|_| {
            let ip = claims.claim_address(&pod(1), &subnet).unwrap();
            claims.release_addresses(&pod(1)).unwrap();
            ip
        })
        .collect();
    assert_eq!(seen, (0..subnet.size()).map(|i| subnet.nth(i)).collect::<Vec<_>>());
    assert_eq!(claims.claim_address(&pod(1), &subnet).unwrap(), seen[0], "then around again");
}

#[test]
fn a_full_subnet_is_said_to_be_full() {
    let dir = tempfile::tempdir().unwrap();
    let subnet: Subnet = "10.88.0.0/29".parse().unwrap();
    let mut claims = Claims::open(dir.path()).unwrap();
    for n in 0..5 {
        claims.claim_address(&pod(n), &subnet).unwrap();
    }
    let refused = claims.claim_address(&pod(9), &subnet).unwrap_err();
    assert!(matches!(refused, Error::Exhausted { subnet: full } if full == subnet));
    claims.release_addresses(&pod(3)).unwrap();
    claims.claim_address(&pod(9), &subnet).unwrap();
}

#[test]
fn litter_is_left_alone_and_never_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let subnet: Subnet = "10.88.0.0/30".parse().unwrap();
    fs::write(dir.path().join("10.88.0.2"), "a note").unwrap();
    symlink("nobody", dir.path().join("10.88.0.3")).unwrap();
    let mut claims = Claims::open(dir.path()).unwrap();
    assert!(claims.pods().is_empty());
    assert!(matches!(claims.claim_address(&pod(1), &subnet), Err(Error::Exhausted { .. })));
    assert_eq!(fs::read_to_string(dir.path().join("10.88.0.2")).unwrap(), "a note");
}

#[test]
fn a_port_has_one_holder_and_nothing_is_claimed_when_one_of_several_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut claims = Claims::open(dir.path()).unwrap();
    claims.claim_ports(&pod(1), &[tcp(80, 8080)]).unwrap();
    claims.claim_ports(&pod(1), &[tcp(80, 8080)]).unwrap();
    let refused = claims.claim_ports(&pod(2), &[tcp(81, 8080), tcp(80, 1)]).unwrap_err();
    assert!(refused.to_string().contains(pod(1).as_str()), "{refused}");
    assert_eq!(entries(dir.path()), 1);
    let bound = HostPort { host_ip: Some("127.0.0.1".parse().unwrap()), ..tcp(80, 8080) };
    assert!(claims.claim_ports(&pod(2), &[bound]).is_err(), "the wide one covers it");

    claims.claim_ports(&pod(1), &[tcp(82, 1), tcp(83, 1)]).unwrap();
    assert_eq!(claims.ports_of(&pod(1)), [tcp(82, 1), tcp(83, 1)], "others were given back");
    claims.claim_ports(&pod(1), &[tcp(82, 2)]).unwrap();
    assert_eq!(Claims::open(dir.path()).unwrap().ports_of(&pod(1)), [tcp(82, 2)]);
}

#[test]
fn claims_are_written_so_that_people_can_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut claims = Claims::open(dir.path()).unwrap();
    let ip = Some("127.0.0.1".parse().unwrap());
    claims.claim_ports(&pod(1), &[HostPort { host_ip: ip, ..tcp(80, 8080) }]).unwrap();
    let target = fs::read_link(dir.path().join("tcp:80@127.0.0.1")).unwrap();
    assert_eq!(target.to_str().unwrap(), format!("{}:8080", pod(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_two_pods_ever_hold_one_address_and_no_reserved_one_is_handed_out(
        prefix in 27u8..=30,
        deeds in proptest::collection::vec((0u8..40, any::<bool>(), 0u8..12), 1..120),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let subnet: Subnet = format!("192.168.7.64/{prefix}").parse().unwrap();
        let mut claims = Claims::open(dir.path()).unwrap();
        let mut model: HashMap<u8, IpAddr> = HashMap::new();
        for (n, take, restart) in deeds {
            if restart == 0 {
                claims = Claims::open(dir.path()).unwrap();
            }
            if !take {
                claims.release_addresses(&pod(n)).unwrap();
                model.remove(&n);
                continue;
            }
            match claims.claim_address(&pod(n), &subnet) {
                Ok(ip) => {
                    prop_assert!((0..subnet.size()).any(|i| subnet.nth(i) == ip));
                    prop_assert!(model.iter().all(|(m, held)| *m == n || *held != ip));
                    prop_assert_eq!(*model.entry(n).or_insert(ip), ip);
                }
                Err(_) => prop_assert_eq!(model.len(), subnet.size() as usize),
            }
        }
        prop_assert_eq!(entries(dir.path()), model.len());
    }

    #[test]
    fn no_name_or_target_of_a_link_makes_the_reader_panic(name in ".{0,60}", target in ".{0,80}") {
        let _ = parse(&name, &target);
        let _ = parse(&name, &"ab".repeat(32));
        let _ = parse(&format!("tcp:{name}"), &format!("{}:{target}", "ab".repeat(32)));
    }

    #[test]
    fn a_claim_survives_its_link(port in 1u16.., to in 1u16.., ip in any::<Option<u128>>()) {
        let host_ip = ip.map(|ip| IpAddr::V6(ip.into()));
        let port = HostPort { host_ip, ..tcp(port, to) };
        let read = parse(&port_name(&port.door()), &format!("{}:{to}", pod(1)));
        prop_assert_eq!(read, Some((Claim::Port(port), pod(1))));
    }
}
