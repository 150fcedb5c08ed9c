//! The built-in network at work: pods reach each other, the host and the world, and leave
//! nothing behind.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use names::Class;
use network::{Bridge, Config, Error, Freed, Lease, Protocol::Tcp};
use sys::netns;

use crate::world::*;

#[test]
fn two_pods_reach_each_other_and_the_gateway_at_once() {
    alone(|world| async move {
        let bridge = world.bridge();
        bridge.status().unwrap();
        let one = world.attached(&bridge, 1, vec![]).await;
        let two = world.attached(&bridge, 2, vec![]).await;
        serve_tcp(Some(&world.netns(1)), ip(&one), 80, "one");
        serve_tcp(None, one.gateways[0], 81, "host");
        let (from, here) = (ip(&two), world.netns(2));
        assert_eq!(ask_tcp(Some(&here), &ip(&one).to_string(), 80).unwrap(), format!("one {from}"));
        assert_eq!(ask_tcp(Some(&here), "10.88.0.1", 81).unwrap(), format!("host {from}"));
        assert_eq!(ask_tcp(None, &ip(&one).to_string(), 80).unwrap(), "one 10.88.0.1");
        let link = run(&format!("nsenter --net={} ip link show eth0", here.display()));
        assert!(link.contains(&two.mac.to_string()) && link.contains("LOWER_UP"), "{link}");
        for lease in [(1, &one), (2, &two)] {
            bridge.detach(&pod(lease.0), lease.1).await.unwrap();
        }
        assert_eq!(world.leaks("podbay0"), [""; 0]);
    });
}

#[test]
fn a_pods_first_packets_are_not_lost() {
    alone(|world| async move {
        let bridge = world.both();
        let outside = world.outside();
        run(&format!("nsenter --net={} ip route add 10.88.0.0/16 via {HOST}", outside.display()));
        run(&format!("nsenter --net={} ip route add fd00:88::/64 via {HOST6}", outside.display()));
        for n in 0..40 {
            // Alone on the bridge, which by itself is connected to nothing.
            let lease = world.attached(&bridge, n, vec![]).await;
            for address in &lease.addresses {
                serve_tcp(Some(&world.netns(n)), address.ip, 80, "pod");
                // By turns, since the first one to ask makes the neighbours known to all.
                let from = [None, Some(outside.as_path())][usize::from(n % 2)];
                let begin = Instant::now();
                ask_tcp(from, &address.ip.to_string(), 80).unwrap();
                let spent = begin.elapsed();
                assert!(spent < RESENT, "pod {n}: a packet from {from:?} was lost, {spent:?}");
            }
            bridge.detach(&pod(n), &lease).await.unwrap();
        }
    });
}

/// When TCP sends a first packet again, and the kernel asks again who has an address.
const RESENT: Duration = Duration::from_millis(1000);

#[test]
fn a_pod_reaches_the_world_with_the_hosts_address_and_the_world_not_the_pod() {
    alone(|world| async move {
        let bridge = world.both();
        let lease = world.attached(&bridge, 1, vec![]).await;
        let (outside, here) = (world.outside(), world.netns(1));
        serve_tcp(Some(&outside), OUTSIDE.parse().unwrap(), 80, "far");
        serve_tcp(Some(&outside), OUTSIDE6.parse().unwrap(), 80, "far");
        assert_eq!(ask_tcp(Some(&here), OUTSIDE, 80).unwrap(), format!("far {HOST}"));
        assert_eq!(ask_tcp(Some(&here), OUTSIDE6, 80).unwrap(), format!("far {HOST6}"));
        bridge.detach(&pod(1), &lease).await.unwrap();
    });
}

#[test]
fn two_families_work_side_by_side() {
    alone(|world| async move {
        let bridge = world.both();
        let one = world.attached(&bridge, 1, vec![]).await;
        let two = world.attached(&bridge, 2, vec![]).await;
        assert_eq!(one.addresses[0].to_string(), "10.88.0.2/16");
        assert_eq!(one.addresses[1].to_string(), "fd00:88::2/64");
        let here = world.netns(2);
        for address in &one.addresses {
            serve_tcp(Some(&world.netns(1)), address.ip, 80, "one");
            let said = ask_tcp(Some(&here), &address.ip.to_string(), 80).unwrap();
            assert!(two.addresses.iter().any(|own| said == format!("one {}", own.ip)), "{said}");
        }
        bridge.detach(&pod(1), &one).await.unwrap();
        bridge.detach(&pod(2), &two).await.unwrap();
        assert_eq!(world.leaks("podbay0"), [""; 0]);
    });
}

#[test]
fn no_pod_can_pass_for_a_router() {
    alone(|world| async move {
        let bridge = world.both();
        set_sysctl("ipv6/conf/uplink/accept_ra", "1");
        let lease = world.attached(&bridge, 1, vec![]).await;
        assert_eq!(sysctl("ipv6/conf/podbay0/accept_ra"), "0");
        assert_eq!(sysctl(&format!("ipv6/conf/{}/accept_ra", lease.host_if)), "0");
        let inside = netns::within(&world.netns(1), || sysctl("ipv6/conf/eth0/accept_ra"));
        assert_eq!(inside.unwrap(), "0");
        let uplink = sysctl("ipv6/conf/uplink/accept_ra");
        assert_eq!(uplink, "2", "the host goes on taking its own route from its router");
        assert_eq!(sysctl("ipv4/conf/all/route_localnet"), "0");
        assert_eq!(sysctl("ipv4/conf/podbay0/route_localnet"), "0", "not before it is needed");
    });
}

#[test]
fn detaching_is_content_with_whatever_is_left() {
    alone(|world| async move {
        let bridge = world.bridge();
        let ports = vec![port(Tcp, None, 8080, 80)];
        let never = bridge.reserve(&pod(1), ports.clone()).await.unwrap();
        bridge.detach(&pod(1), &never).await.unwrap();
        bridge.detach(&pod(1), &never).await.unwrap();

        let twice = world.attached(&bridge, 2, ports.clone()).await;
        bridge.detach(&pod(2), &twice).await.unwrap();
        bridge.detach(&pod(2), &twice).await.unwrap();

        let gone = world.attached(&bridge, 3, ports.clone()).await;
        netns::unmake(&world.netns(3)).unwrap();
        bridge.detach(&pod(3), &gone).await.unwrap();
        assert_eq!(world.leaks("podbay0"), [""; 0]);

        let cut = world.attached(&bridge, 4, ports.clone()).await;
        run(&format!("ip link delete {}", cut.host_if));
        run("nft flush ruleset");
        bridge.detach(&pod(4), &cut).await.unwrap();
        bridge.make().await.unwrap();
        assert_eq!(world.leaks("podbay0"), [""; 0]);

        let wiped = world.attached(&bridge, 5, ports).await;
        fs::remove_dir_all(world.root()).unwrap();
        let after = world.bridge();
        after.detach(&pod(5), &wiped).await.unwrap();
        fs::create_dir(world.root()).unwrap();
        assert_eq!(world.leaks("podbay0"), [""; 0], "by the lease alone");
    });
}

#[test]
fn a_second_detach_leaves_alone_what_is_another_pods_by_now() {
    alone(|world| async move {
        let bridge = Bridge::new(world.config(&["10.88.0.0/30"])).unwrap();
        let old = world.attached(&bridge, 1, vec![port(Tcp, None, 8080, 80)]).await;
        bridge.detach(&pod(1), &old).await.unwrap();
        let new = world.attached(&bridge, 2, vec![port(Tcp, None, 8080, 80)]).await;
        assert_eq!(new.addresses, old.addresses, "there is only one");
        serve_tcp(Some(&world.netns(2)), ip(&new), 80, "new");
        bridge.detach(&pod(1), &old).await.unwrap();
        assert_eq!(ask_tcp(None, "127.0.0.1", 8080).unwrap(), "new 10.88.0.1");
        let refused = bridge.attach(&pod(1), &world.netns(1), &old).await.unwrap_err();
        assert!(matches!(refused, Error::NotReserved { .. }), "{refused}");
    });
}

#[test]
fn fifty_pods_at_once_are_all_right_and_all_gone() {
    alone(|world| async move {
        let bridge = world.bridge();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let (bridge, path) = (bridge.clone(), world.netns(n));
            tasks.spawn(async move {
                netns::make(&path, &[]).unwrap();
                let ports = vec![port(Tcp, None, 9000 + u16::from(n), 80)];
                let ports = if n % 2 == 0 { ports } else { vec![] };
                let lease = bridge.reserve(&pod(n), ports).await.unwrap();
                bridge.attach(&pod(n), &path, &lease).await.unwrap();
                serve_tcp(Some(&path), ip(&lease), 80, "here");
                (n, lease)
            });
        }
        let pods: Vec<(u8, Lease)> = tasks.join_all().await;
        let mut ips: Vec<IpAddr> = pods.iter().map(|(_, lease)| ip(lease)).collect();
        ips.sort_unstable();
        ips.dedup();
        assert_eq!(ips.len(), 50);
        for (n, lease) in &pods {
            ask_tcp(None, &ip(lease).to_string(), 80).unwrap();
            if n % 2 == 0 {
                ask_tcp(None, HOST, 9000 + u16::from(*n)).unwrap();
            }
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (n, lease) in pods {
            let bridge = bridge.clone();
            tasks.spawn(async move { bridge.detach(&pod(n), &lease).await.unwrap() });
        }
        tasks.join_all().await;
        assert_eq!(world.leaks("podbay0"), [""; 0]);
    });
}

#[test]
fn what_a_crash_left_is_swept_and_what_lives_is_not() {
    alone(|world| async move {
        let before = world.bridge();
        let reserved = vec![port(Tcp, None, 8081, 80)];
        before.reserve(&pod(1), reserved.clone()).await.unwrap();
        world.attached(&before, 2, vec![port(Tcp, None, 8082, 80)]).await;
        let live = world.attached(&before, 3, vec![port(Tcp, None, 8083, 80)]).await;
        serve_tcp(Some(&world.netns(3)), ip(&live), 80, "live");
        // A link without a lease, and one that only looks like ours.
        run("ip link add pb0123456789abc type veth peer name other");
        run("ip link set pb0123456789abc master podbay0");
        run("ip link add pbfedcba9876543 type veth peer name another");
        drop(before);

        let after = world.bridge();
        let freed = after.sweep(&[pod(3)]).await.unwrap();
        let link = Freed::Link("pb0123456789abc".to_owned());
        assert_eq!(freed, [Freed::Pod(pod(2)), Freed::Pod(pod(1)), link].tap_sorted());
        assert_eq!(after.sweep(&[pod(3)]).await.unwrap(), []);
        run("ip link delete pbfedcba9876543");
        assert_eq!(ask_tcp(None, "127.0.0.1", 8083).unwrap(), "live 10.88.0.1");
        assert_eq!(after.reserve(&pod(3), live.ports.clone()).await.unwrap(), live);
        after.reserve(&pod(4), reserved).await.unwrap();
        after.sweep(&[]).await.unwrap();
        assert_eq!(world.leaks("podbay0"), [""; 0]);
    });
}

#[test]
fn a_full_subnet_refuses_until_a_pod_goes() {
    alone(|world| async move {
        let bridge = Bridge::new(world.config(&["10.88.0.0/29"])).unwrap();
        let mut leases = Vec::new();
        for n in 0..5 {
            leases.push(world.attached(&bridge, n, vec![]).await);
        }
        let refused = bridge.reserve(&pod(9), vec![port(Tcp, None, 80, 80)]).await.unwrap_err();
        assert_eq!(refused.class(), Class::ResourceExhausted, "{refused}");
        bridge.detach(&pod(2), &leases[2]).await.unwrap();
        let lease = bridge.reserve(&pod(9), vec![port(Tcp, None, 80, 80)]).await.unwrap();
        assert_eq!(lease.addresses, leases[2].addresses);
    });
}

#[test]
fn a_failed_attach_leaves_nothing_but_the_lease() {
    alone(|world| async move {
        let bridge = world.bridge();
        let lease = bridge.reserve(&pod(1), vec![]).await.unwrap();
        let refused = bridge.attach(&pod(1), &world.netns(1), &lease).await.unwrap_err();
        assert_eq!(refused.class(), Class::NotFound, "{refused}");
        netns::make(&world.netns(1), &[]).unwrap();
        netns::within(&world.netns(1), || run("ip link add eth0 type veth peer name other"))
            .unwrap();
        let refused = bridge.attach(&pod(1), &world.netns(1), &lease).await.unwrap_err();
        assert!(matches!(refused, Error::HasEth0 { .. }), "{refused}");
        assert_eq!(world.leaks("podbay0"), [ip(&lease).to_string()]);
        netns::within(&world.netns(1), || run("ip link delete eth0")).unwrap();
        bridge.attach(&pod(1), &world.netns(1), &lease).await.unwrap();
        bridge.attach(&pod(1), &world.netns(1), &lease).await.expect("again, after a crash");
        serve_tcp(Some(&world.netns(1)), ip(&lease), 80, "here");
        ask_tcp(None, &ip(&lease).to_string(), 80).unwrap();
    });
}

#[test]
fn what_others_remove_is_made_again() {
    alone(|world| async move {
        let bridge = world.bridge();
        let one = world.attached(&bridge, 1, vec![port(Tcp, None, 8081, 80)]).await;
        serve_tcp(Some(&world.netns(1)), ip(&one), 80, "one");
        run("nft flush ruleset");
        assert!(is_deaf(None, HOST, 8081));
        world.attached(&bridge, 2, vec![]).await;
        ask_tcp(None, HOST, 8081).expect("the next pod brings all host ports back");
        run("ip link delete podbay0");
        let three = world.attached(&bridge, 3, vec![]).await;
        serve_tcp(Some(&world.netns(3)), ip(&three), 80, "three");
        ask_tcp(None, &ip(&three).to_string(), 80).unwrap();
        bridge.unmake().await.unwrap();
        bridge.unmake().await.unwrap();
        assert!(!run("ip -o link").contains("podbay0") && run("nft list tables").is_empty());
        world.attached(&bridge, 4, vec![]).await;
    });
}

#[test]
fn a_host_that_is_in_the_way_is_told_how() {
    alone(|world| async move {
        let config = world.config(&["192.0.0.0/16"]);
        let refused = Bridge::new(config).unwrap().make().await.unwrap_err();
        assert!(refused.to_string().contains("192.0.2.1/24 of uplink"), "{refused}");
        assert_eq!(refused.class(), Class::FailedPrecondition);
        let config = Config { bridge: "uplink".to_owned(), ..world.config(&["10.88.0.0/16"]) };
        let refused = Bridge::new(config).unwrap().make().await.unwrap_err();
        assert!(matches!(refused, Error::NotABridge(_)), "{refused}");
        assert!(run("nft list tables").is_empty() && !run("ip -o link").contains("podbay"));
    });
}

#[test]
fn a_firewall_that_drops_what_pods_send_is_found_and_what_it_advises_helps() {
    alone(|world| async move {
        let bridge = world.bridge();
        world.attached(&bridge, 1, vec![]).await;
        serve_tcp(Some(&world.outside()), OUTSIDE.parse().unwrap(), 80, "far");
        let here = world.netns(1);
        assert_eq!(bridge.obstacles().unwrap(), []);
        run("nft add table ip filter");
        run(
            "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        );
        assert!(is_deaf(Some(&here), OUTSIDE, 80));
        let [obstacle] = &bridge.obstacles().unwrap()[..] else { panic!("one is found") };
        let advice = obstacle.to_string();
        for command in advice.split(": ").last().unwrap().split("; ") {
            run(command);
        }
        ask_tcp(Some(&here), OUTSIDE, 80).unwrap();
        assert_eq!(bridge.obstacles().unwrap(), []);
    });
}

#[test]
fn two_networks_do_not_touch_each_other() {
    alone(|world| async move {
        let one = world.bridge();
        let two = Bridge::new(Config {
            bridge: "other0".to_owned(),
            root: world.dir.join("other"),
            ..world.config(&["10.99.0.0/24"])
        });
        let two = two.unwrap();
        world.attached(&one, 1, vec![port(Tcp, None, 8081, 80)]).await;
        let lease = world.attached(&two, 2, vec![port(Tcp, None, 8082, 80)]).await;
        serve_tcp(Some(&world.netns(2)), ip(&lease), 80, "two");
        one.sweep(&[]).await.unwrap();
        one.unmake().await.unwrap();
        assert_eq!(ask_tcp(None, "127.0.0.1", 8082).unwrap(), "two 10.99.0.1");
    });
}

#[test]
fn the_links_have_the_mtu_that_is_asked_for() {
    alone(|world| async move {
        let config = Config { mtu: Some(1400), ..world.config(&["10.88.0.0/16"]) };
        let bridge = Bridge::new(config).unwrap();
        let lease = world.attached(&bridge, 1, vec![]).await;
        assert!(run("ip link show podbay0").contains("mtu 1400"));
        assert!(run(&format!("ip link show {}", lease.host_if)).contains("mtu 1400"));
        let inside = netns::within(&world.netns(1), || run("ip link show eth0")).unwrap();
        assert!(inside.contains("mtu 1400"), "{inside}");
    });
}

#[test]
fn an_attach_that_takes_too_long_is_waited_for_by_its_undo() {
    alone(|world| async move {
        let bridge = world.bridge();
        let lease = world.attached(&bridge, 1, vec![]).await;
        bridge.detach(&pod(1), &lease).await.unwrap();
        for _ in 0..20 {
            let lease = bridge.reserve(&pod(1), vec![]).await.unwrap();
            let (one, path) = (pod(1), world.netns(1));
            let attach = bridge.attach(&one, &path, &lease);
            let soon = Duration::from_micros(50);
            let _ = tokio::time::timeout(soon, attach).await;
            bridge.detach(&pod(1), &lease).await.unwrap();
            assert_eq!(world.leaks("podbay0"), [""; 0]);
        }
    });
}

trait Sorted {
    fn tap_sorted(self) -> Self;
}

/// Pods are freed in the order of their ids, before links.
impl<const N: usize> Sorted for [Freed; N] {
    fn tap_sorted(mut self) -> Self {
        self.sort_by_key(|freed| match freed {
            Freed::Pod(pod) => format!("0{pod}"),
            Freed::Link(name) => format!("1{name}"),
        });
        self
    }
}
