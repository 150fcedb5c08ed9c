//! Results of all versions, as plugins print them, and what is none.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_result_of_1_1_gives_addresses_in_order_routes_and_dns() {
    let outcome = parse_result(
        br#"{"cniVersion": "1.1.0",
          "interfaces": [
            {"name": "cni0", "mac": "aa:bb:cc:dd:ee:01"},
            {"name": "veth1", "mac": "aa:bb:cc:dd:ee:02", "mtu": 1500},
            {"name": "eth0", "mac": "aa:bb:cc:dd:ee:03", "sandbox": "/run/netns/a", "pciID": "x"}],
          "ips": [
            {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 2},
            {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
            {"address": "10.1.0.1/16", "interface": 0}],
          "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 9}],
          "dns": {"nameservers": ["10.1.0.1"], "search": null}}"#,
    )
    .unwrap();
    assert_eq!(outcome.pod_ips("eth0"), ips(&["fd00::5", "10.1.0.5"]));
    assert_eq!(outcome.pod_ips("eth1"), ips(&[]));
    assert_eq!(outcome.addresses[1].prefix, 16);
    assert_eq!(outcome.addresses[1].gateway, Some([10, 1, 0, 1].into()));
    assert_eq!(outcome.interfaces[1].mtu, Some(1500));
    assert_eq!(outcome.routes.len(), 2);
    assert_eq!((outcome.routes[0].prefix, outcome.routes[0].gateway), (0, None));
    assert_eq!(outcome.dns.nameservers, ["10.1.0.1"]);
}

#[test]
fn results_of_before_1_0_are_understood_too() {
    let with_version = br#"{"cniVersion": "0.3.1", "interfaces": null, "dns": {},
        "ips": [{"version": "4", "address": "10.1.0.5/16", "gateway": ""}], "routes": null}"#;
    assert_eq!(parse_result(with_version).unwrap().pod_ips("eth0"), ips(&["10.1.0.5"]));
    let by_family = br#"{"cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00::5/64"}}"#;
    let outcome = parse_result(by_family).unwrap();
    assert_eq!(outcome.pod_ips("eth0"), ips(&["10.1.0.5", "fd00::5"]));
    assert_eq!(outcome.routes.len(), 1);
}

#[test]
fn an_address_of_the_hosts_interface_of_that_name_is_not_the_pods() {
    let outcome = Outcome::of(&json!({
        "interfaces": [{"name": "eth0"}, {"name": "eth0", "sandbox": "/n"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 0}, {"address": "10.0.0.2/8", "interface": 1}],
    }))
    .unwrap();
    assert_eq!(outcome.pod_ips("eth0"), ips(&["10.0.0.2"]));
    let untold = Outcome::of(&json!({
        "interfaces": [{"name": "eth0"}],
        "ips": [{"address": "10.0.0.2/8", "interface": 0}, {"address": "10.0.0.3/8", "interface": -1}],
    }))
    .unwrap();
    assert_eq!(untold.pod_ips("eth0"), ips(&["10.0.0.2", "10.0.0.3"]));
}

#[test]
fn what_is_no_result_is_refused_and_named() {
    for (text, expected) in [
        ("", "it printed nothing"),
        (" \n", "it printed nothing"),
        ("ok", "it printed something else than a result"),
        ("[]", "it printed JSON that is not an object, which is no result"),
        (r#"{"code": 7, "msg": "no"}"#, "it printed an error, yet ended well, which is no result"),
        (r#"{"ips": [{"address": "10.0.0.1"}]}"#, "\"10.0.0.1\" is not an address with"),
        (r#"{"ips": [{"address": "10.0.0.1/33"}]}"#, "\"10.0.0.1/33\" is not"),
        (r#"{"ips": [{"address": "::1/129"}]}"#, "\"::1/129\" is not"),
        (r#"{"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}"#, "\"x\" is not"),
        (
            r#"{"ips": [{"address": "10.0.0.1/8", "interface": 0}]}"#,
            "an address belongs to interface 0",
        ),
        (r#"{"ips": "10.0.0.1/8"}"#, "it printed something else"),
        (r#"{"routes": [{"dst": "everywhere"}]}"#, "\"everywhere\" is not"),
        (r#"{"ips": [{}]}"#, "it printed something else"),
    ] {
        let refusal = parse_result(text.as_bytes()).unwrap_err().to_string();
        assert!(refusal.starts_with(expected), "{text}: {refusal}");
    }
    let deep = "[".repeat(100_000);
    assert!(parse_result(deep.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_result(&bytes);
    }

    #[test]
    fn addresses_come_out_as_they_went_in(
        all in prop::collection::vec((any::<IpAddr>(), 0_u8..=32), 0..6),
        interface in prop_oneof![Just(None), (-2_i64..3).prop_map(Some)],
    ) {
        let ips: Vec<_> = all
            .iter()
            .map(|(ip, prefix)| json!({"address": format!("{ip}/{prefix}"), "interface": interface}))
            .collect();
        let result = json!({"interfaces": [{"name": "eth0", "sandbox": "/n"}], "ips": ips});
        match parse_result(result.to_string().as_bytes()) {
            Ok(outcome) => {
                let wanted: Vec<_> = all.iter().map(|(ip, _)| *ip).collect();
                prop_assert_eq!(outcome.pod_ips("eth0"), wanted);
            }
            Err(e) => prop_assert!(interface > Some(0), "{}", e),
        }
    }
}
