//! How long a pod takes to attach and detach. Prints, and judges nothing.

use std::time::{Duration, Instant};

use network::{HostPort, Protocol::Tcp};
use sys::netns;

use crate::world::*;

#[test]
#[ignore = "a measurement: cargo test --release -p network -- --ignored --nocapture"]
fn attaching_and_detaching() {
    alone(|world| async move {
        println!("one at a time, without host ports");
        measure(&world, |_| vec![]).await;
        println!("one at a time, with a host port");
        measure(&world, |n| vec![port(Tcp, None, 9000 + u16::from(n), 80)]).await;
        println!("all at once, without host ports");
        at_once(&world).await;
    });
}

const PODS: u8 = 100;

async fn measure(world: &World, ports: impl Fn(u8) -> Vec<HostPort>) {
    let bridge = world.bridge();
    bridge.make().await.unwrap();
    let mut spent: [Vec<Duration>; 5] = Default::default();
    for n in 0..PODS {
        netns::make(&world.netns(n), &[]).unwrap();
        let begin = Instant::now();
        let lease = bridge.reserve(&pod(n), ports(n)).await.unwrap();
        spent[0].push(begin.elapsed());
        let begin = Instant::now();
        bridge.attach(&pod(n), &world.netns(n), &lease).await.unwrap();
        spent[1].push(begin.elapsed());
        serve_tcp(Some(&world.netns(n)), ip(&lease), 80, "pod");
        let begin = Instant::now();
        ask_tcp(None, &ip(&lease).to_string(), 80).unwrap();
        spent[2].push(begin.elapsed());
        let begin = Instant::now();
        bridge.detach(&pod(n), &lease).await.unwrap();
        spent[3].push(begin.elapsed());
        let begin = Instant::now();
        netns::unmake(&world.netns(n)).unwrap();
        spent[4].push(begin.elapsed());
    }
    let names = ["reserve", "attach", "first connection", "detach", "netns unmake"];
    for (name, times) in names.into_iter().zip(spent) {
        print(name, times);
    }
}

async fn at_once(world: &World) {
    let bridge = world.bridge();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..PODS {
        netns::make(&world.netns(n), &[]).unwrap();
    }
    let begin = Instant::now();
    for n in 0..PODS {
        let (bridge, path) = (bridge.clone(), world.netns(n));
        tasks.spawn(async move {
            let lease = bridge.reserve(&pod(n), vec![]).await.unwrap();
            bridge.attach(&pod(n), &path, &lease).await.unwrap();
            (n, lease)
        });
    }
    let leases = tasks.join_all().await;
    println!("  {PODS} attached in {:?}", begin.elapsed());
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (n, lease) in leases {
        let bridge = bridge.clone();
        tasks.spawn(async move { bridge.detach(&pod(n), &lease).await.unwrap() });
    }
    tasks.join_all().await;
    println!("  {PODS} detached in {:?}", begin.elapsed());
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!("  {name:18} p50 {:?} p95 {:?} p99 {:?}", at(50), at(95), at(99));
}
