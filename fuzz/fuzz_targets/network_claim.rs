//! The links in which the bridge's claims are kept, a line for the name and one for the target; and
//! the subnets and MAC addresses of the configuration. What is read is written alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use network::{Claim, Mac, Subnet, parse_claim};

fuzz_target!(|text: &str| {
    let (name, target) = text.split_once('\n').unwrap_or((text, ""));
    match parse_claim(name, target) {
        Some((Claim::Address(ip), pod)) => {
            assert_eq!((ip.to_string().as_str(), pod.as_str()), (name, target));
        }
        Some((Claim::Port(port), pod)) => {
            assert!(name.contains(&port.host_port.to_string()));
            assert!(target.starts_with(pod.as_str()));
        }
        None => {}
    }
    if let Ok(subnet) = name.parse::<Subnet>() {
        assert_eq!(subnet.to_string().parse::<Subnet>().as_ref(), Ok(&subnet));
        assert!(subnet.contains(subnet.gateway().ip));
    }
    if let Ok(mac) = Mac::try_from(name.to_owned()) {
        assert_eq!(Mac::try_from(mac.to_string()), Ok(mac));
    }
});
