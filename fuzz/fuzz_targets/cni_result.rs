//! What a CNI plugin printed: an address that is believed has a prefix that can be, and belongs to
//! an interface that there is.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(outcome) = cni::parse_result(bytes) else { return };
    for address in &outcome.addresses {
        assert!(address.prefix <= longest(address.ip));
        assert!(address.interface.is_none_or(|at| at < outcome.interfaces.len()));
    }
    for route in &outcome.routes {
        assert!(route.prefix <= longest(route.to));
    }
    let all: Vec<IpAddr> = outcome.addresses.iter().map(|address| address.ip).collect();
    assert!(outcome.pod_ips("eth0").iter().all(|ip| all.contains(ip)));
});

fn longest(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}
