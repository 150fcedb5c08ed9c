//! Host ports: who reaches the pod by them, and who must not.

use names::Class;
use network::{
    Bridge, Error,
    Protocol::{Tcp, Udp as UDP},
};
use sys::netns;

use crate::world::*;

#[test]
fn a_host_port_leads_to_the_pod_from_everywhere() {
    alone(|world| async move {
        let bridge = world.bridge();
        let ports = vec![port(Tcp, None, 8080, 80), port(UDP, None, 5353, 53)];
        let lease = world.attached(&bridge, 1, ports).await;
        world.attached(&bridge, 2, vec![]).await;
        let (server, client) = (world.netns(1), world.netns(2));
        serve_tcp(Some(&server), ip(&lease), 80, "pod");
        serve_udp(Some(&server), ip(&lease), 53, "pod");
        let outside = world.outside();
        for through_netfilter in ["0", "1"] {
            // Whether bridged packets pass through netfilter is the host's choice; both must work.
            set_sysctl("bridge/bridge-nf-call-iptables", through_netfilter);
            for (from, to) in [
                (None, "127.0.0.1"),
                (None, "127.0.0.2"),
                (None, "10.88.0.1"),
                (None, HOST),
                (Some(outside.as_path()), HOST),
                (Some(client.as_path()), HOST),
                (Some(client.as_path()), "10.88.0.1"),
                (Some(server.as_path()), HOST),
                (Some(server.as_path()), "10.88.0.1"),
            ] {
                let case = format!("{from:?} to {to}, netfilter {through_netfilter}");
                let said = ask_tcp(from, to, 8080).unwrap_or_else(|e| panic!("tcp {case}: {e}"));
                assert!(said.starts_with("pod "), "{case}: {said}");
                let said = Udp::new(from, to, 5353).ask();
                assert!(said.unwrap_or_else(|e| panic!("udp {case}: {e}")).starts_with("pod "));
            }
        }
        let seen = ask_tcp(Some(&outside), HOST, 8080).unwrap();
        assert_eq!(seen, format!("pod {OUTSIDE}"), "the pod sees who asks");
        bridge.detach(&pod(1), &lease).await.unwrap();
        assert!(is_deaf(None, "127.0.0.1", 8080));
    });
}

#[test]
fn a_host_port_of_both_families_leads_to_the_pod() {
    alone(|world| async move {
        let bridge = world.both();
        let ports = vec![
            port(Tcp, None, 8080, 80),
            port(Tcp, Some(HOST6), 8081, 80),
            port(Tcp, Some("0.0.0.0"), 8082, 80),
            port(Tcp, Some("::"), 8083, 80),
        ];
        let lease = world.attached(&bridge, 1, ports).await;
        world.attached(&bridge, 2, vec![]).await;
        for address in &lease.addresses {
            serve_tcp(Some(&world.netns(1)), address.ip, 80, "pod");
        }
        let (outside, client, server) = (world.outside(), world.netns(2), world.netns(1));
        for from in [None, Some(outside.as_path()), Some(&client), Some(&server)] {
            for (to, port) in
                [(HOST, 8080), (HOST6, 8080), (HOST6, 8081), (HOST, 8082), (HOST6, 8083)]
            {
                let said = ask_tcp(from, to, port);
                assert!(said.is_ok(), "{from:?} to {to} {port}: {said:?}");
            }
        }
        assert!(is_deaf(None, HOST, 8081) && is_deaf(None, HOST, 8083));
        assert!(is_deaf(None, HOST6, 8082));
        assert!(is_deaf(None, "::1", 8080), "refused at once, so that clients turn to 127.0.0.1");
        let refused = bridge.reserve(&pod(3), vec![port(Tcp, Some("::1"), 9000, 80)]).await;
        assert_eq!(refused.unwrap_err().class(), Class::InvalidArgument);
        bridge.detach(&pod(1), &lease).await.unwrap();
        let rest = world.leaks("podbay0");
        assert!(rest.iter().all(|leak| !leak.contains("elements")), "{rest:?}");
    });
}

#[test]
fn a_host_port_at_one_address_is_not_at_the_others() {
    alone(|world| async move {
        let bridge = world.bridge();
        let ports = vec![port(Tcp, Some("127.0.0.1"), 8080, 80), port(Tcp, Some(HOST), 8081, 80)];
        let lease = world.attached(&bridge, 1, ports).await;
        serve_tcp(Some(&world.netns(1)), ip(&lease), 80, "pod");
        let other = world.attached(&bridge, 2, vec![port(Tcp, Some("10.88.0.1"), 8081, 80)]).await;
        serve_tcp(Some(&world.netns(2)), ip(&other), 80, "other");
        let outside = world.outside();
        ask_tcp(None, "127.0.0.1", 8080).unwrap();
        assert!(is_deaf(None, HOST, 8080) && is_deaf(Some(&outside), HOST, 8080));
        assert!(ask_tcp(Some(&outside), HOST, 8081).unwrap().starts_with("pod"));
        assert!(ask_tcp(None, "10.88.0.1", 8081).unwrap().starts_with("other"));
        assert!(is_deaf(None, "127.0.0.1", 8081));
    });
}

#[test]
fn traffic_to_others_is_not_taken_for_a_host_port() {
    alone(|world| async move {
        let bridge = world.bridge();
        let lease = world.attached(&bridge, 1, vec![port(Tcp, None, 8080, 80)]).await;
        world.attached(&bridge, 2, vec![]).await;
        serve_tcp(Some(&world.netns(1)), ip(&lease), 80, "pod");
        serve_tcp(Some(&world.outside()), OUTSIDE.parse().unwrap(), 8080, "far");
        for from in [None, Some(world.netns(2))] {
            let said = ask_tcp(from.as_deref(), OUTSIDE, 8080).unwrap();
            assert_eq!(said, format!("far {HOST}"));
        }
    });
}

#[test]
fn a_host_port_has_one_pod() {
    alone(|world| async move {
        let bridge = world.bridge();
        let first = world.attached(&bridge, 1, vec![port(Tcp, None, 8080, 80)]).await;
        for ip in [None, Some("127.0.0.1"), Some("0.0.0.0")] {
            let refused = bridge.reserve(&pod(2), vec![port(Tcp, ip, 8080, 81)]).await.unwrap_err();
            assert_eq!(refused.class(), Class::AlreadyExists);
            assert!(refused.to_string().contains(pod(1).as_str()), "{refused}");
        }
        let twice = vec![port(Tcp, None, 1, 80), port(Tcp, None, 1, 81)];
        let refused = bridge.reserve(&pod(2), twice).await.unwrap_err();
        assert!(matches!(refused, Error::BadPort { .. }), "{refused}");
        assert_eq!(std::fs::read_dir(world.root()).unwrap().count(), 2, "pod 2 holds nothing");
        bridge.reserve(&pod(2), vec![port(UDP, None, 8080, 81)]).await.unwrap();
        bridge.detach(&pod(1), &first).await.unwrap();
        bridge.reserve(&pod(3), vec![port(Tcp, None, 8080, 81)]).await.unwrap();
    });
}

#[test]
fn a_pod_does_not_reach_the_hosts_loopback() {
    alone(|world| async move {
        let bridge = world.bridge();
        let lease = world.attached(&bridge, 1, vec![port(Tcp, None, 8080, 80)]).await;
        serve_tcp(None, "127.0.0.1".parse().unwrap(), 9, "loopback");
        assert_eq!(sysctl("ipv4/conf/podbay0/route_localnet"), "1");
        assert_eq!(sysctl("ipv4/conf/all/route_localnet"), "0");
        assert_eq!(sysctl("ipv4/conf/uplink/route_localnet"), "0");
        // What a pod with the right to change its own routes can do.
        let sly = || {
            set_sysctl("ipv4/conf/all/route_localnet", "1");
            run("ip address delete 127.0.0.1/8 dev lo");
            run("ip route add 127.0.0.1 via 10.88.0.1 dev eth0");
        };
        netns::within(&world.netns(1), sly).unwrap();
        assert!(is_deaf(Some(&world.netns(1)), "127.0.0.1", 9));
        run("nft flush chain inet podbay-podbay0 guard");
        let said = ask_tcp(Some(&world.netns(1)), "127.0.0.1", 9);
        assert!(said.is_ok(), "the test itself must be able to fail: {said:?}");
        bridge.detach(&pod(1), &lease).await.unwrap();
    });
}

#[test]
fn a_client_that_goes_on_sending_reaches_the_pod_that_is_there_now() {
    alone(|world| async move {
        let bridge = world.bridge();
        let ports = vec![port(UDP, None, 5353, 53)];
        let outside = world.outside();
        let client = Udp::new(Some(&outside), HOST, 5353);
        assert!(client.ask_once().is_err());
        let old = world.attached(&bridge, 1, ports.clone()).await;
        serve_udp(Some(&world.netns(1)), ip(&old), 53, "old");
        assert_eq!(client.ask().unwrap(), format!("old {OUTSIDE}"), "though it called too early");
        bridge.detach(&pod(1), &old).await.unwrap();
        assert!(client.ask_once().is_err());
        let new = world.attached(&bridge, 2, ports).await;
        serve_udp(Some(&world.netns(2)), ip(&new), 53, "new");
        assert_eq!(client.ask().unwrap(), format!("new {OUTSIDE}"));
    });
}

#[test]
fn a_flow_to_a_host_port_does_not_reach_the_next_pod_at_that_address() {
    alone(|world| async move {
        let bridge = Bridge::new(world.config(&["10.88.0.0/30"])).unwrap();
        let outside = world.outside();
        let old = world.attached(&bridge, 1, vec![port(UDP, None, 5353, 53)]).await;
        serve_udp(Some(&world.netns(1)), ip(&old), 53, "old");
        let client = Udp::new(Some(&outside), HOST, 5353);
        client.ask().unwrap();
        bridge.detach(&pod(1), &old).await.unwrap();
        let new = world.attached(&bridge, 2, vec![]).await;
        assert_eq!(new.addresses, old.addresses);
        serve_udp(Some(&world.netns(2)), ip(&new), 53, "new");
        for _ in 0..5 {
            assert!(client.ask_once().is_err());
        }
        Udp::new(None, &ip(&new).to_string(), 53).ask().expect("it is there, for those it is for");
    });
}

#[test]
fn host_ports_survive_a_restart_and_a_flush() {
    alone(|world| async move {
        let lease = world.attached(&world.bridge(), 1, vec![port(Tcp, None, 8080, 80)]).await;
        serve_tcp(Some(&world.netns(1)), ip(&lease), 80, "pod");
        let after = world.bridge();
        ask_tcp(None, HOST, 8080).unwrap();
        run("nft flush ruleset");
        after.make().await.unwrap();
        ask_tcp(None, HOST, 8080).unwrap();
        after.detach(&pod(1), &lease).await.unwrap();
        assert_eq!(world.leaks("podbay0"), [""; 0]);
    });
}

#[test]
fn without_nft_it_is_said_what_to_install() {
    alone(|world| async move {
        for dir in ["/usr/sbin", "/usr/local/sbin"] {
            let nft = format!("{dir}/nft");
            if std::path::Path::new(&nft).exists() {
                std::fs::write(world.dir.join("empty"), "").unwrap();
                run(&format!("mount --bind {} {nft}", world.dir.join("empty").display()));
            }
        }
        let bridge: Bridge = world.bridge();
        let why = bridge.status().unwrap_err();
        assert!(why.to_string().contains("install the package \"nftables\""), "{why}");
        assert_eq!(why.class(), Class::FailedPrecondition);
        assert!(matches!(bridge.make().await, Err(Error::NoNft)));
    });
}
