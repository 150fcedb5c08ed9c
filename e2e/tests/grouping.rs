//! One shim for all pods of the node, where the configuration asks for that.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use cri_proto::v1::ContainerState;
use e2e::{Daemon, Options, Process, eventually, is_true, sharing, shell, sleeps};

const PODS: usize = 4;

async fn grouped() -> Option<Daemon> {
    Daemon::start(Options::default().set("shim_grouping", r#""node""#)).await
}

/// The shims of this daemon that live.
fn shims(node: &Daemon) -> Vec<Process> {
    let folder = node.place.state().join("shims").display().to_string();
    let mut all = e2e::processes();
    all.retain(|it| !it.zombie && it.line.contains("--pod node") && it.line.contains(&folder));
    all
}

/// Pods with a container each, the first with an init too.
async fn pods(node: &Daemon) -> Vec<(String, String)> {
    let (cri, mut made) = (node.cri(), Vec::new());
    for n in 0..PODS {
        let config = node.pod(&format!("p{n}"));
        let config = if n == 0 { sharing(config) } else { config };
        let pod = cri.run_pod(&config).await.unwrap();
        let container = cri.launch(&pod, &sleeps("c")).await.unwrap();
        made.push((pod, container));
    }
    made
}

#[tokio::test]
async fn all_pods_share_one_shim_and_it_goes_with_the_daemon_when_there_are_none() {
    let Some(mut node) = grouped().await else { return };
    let cri = node.cri();
    let all = pods(&node).await;
    assert_eq!(shims(&node).len(), 1);
    for (_, container) in &all {
        assert_eq!(cri.shell(container, "echo here").await.unwrap(), "here");
    }
    let ended = cri.launch(&all[1].0, &shell("ended", "exit 4")).await.unwrap();
    assert_eq!(cri.ended(&ended).await.unwrap().exit_code, 4);
    cri.remove_pod(&all[0].0).await.unwrap();
    assert_eq!(cri.shell(&all[1].1, "echo here").await.unwrap(), "here", "others go on");
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert_eq!(cri.shell(&all[1].1, "echo here").await.unwrap(), "here");
    assert_eq!(shims(&node).len(), 1, "it is found again");
    cri.remove_all().await.unwrap();
    assert_eq!(shims(&node).len(), 1, "the next pod will want it");
    node.terminate().await;
    let none = async || is_true(shims(&node).is_empty());
    eventually("the shim ends with the daemon", none).await;
}

#[tokio::test]
async fn the_end_of_the_nodes_shim_costs_all_containers_and_only_pods_with_an_init() {
    let Some(mut node) = grouped().await else { return };
    pods(&node).await;
    renew(&mut node).await;
    let (cri, before) = (node.cri(), node.snapshot());
    let all = pods(&node).await;
    shims(&node).first().unwrap().kill();
    for (_, container) in &all {
        let state = async || {
            let status = cri.container(container).await.unwrap();
            is_true(status.state() == ContainerState::ContainerExited && status.exit_code == 137)
        };
        eventually("its container is told of as killed", state).await;
    }
    let (with_init, without) = all.split_first().unwrap();
    let not_ready = async || is_true(!cri.is_ready(&with_init.0).await.unwrap());
    eventually("the pod with an init is not ready", not_ready).await;
    for (pod, _) in without {
        let next = cri.launch(pod, &sleeps("next")).await.expect("there is another shim");
        assert_eq!(cri.shell(&next, "echo here").await.unwrap(), "here");
    }
    assert_eq!(shims(&node).len(), 1);
    renew(&mut node).await;
    node.assert_untouched(&before, "pods whose shim was killed").await;
}

/// A daemon without pods, and so without a shim.
async fn renew(node: &mut Daemon) {
    node.cri().remove_all().await.unwrap();
    node.terminate().await;
    node.start_again().await;
}
