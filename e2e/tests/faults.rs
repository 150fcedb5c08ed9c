//! Every step of making a pod or a container fails, and crashes the daemon, before and after its deed.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use cri_proto::v1;
use e2e::{Daemon, Options, eventually, is_true, sharing, sleeps};

const OF_PODS: [&str; 8] =
    ["Record", "Files", "Image", "Cgroup", "Netns", "Network", "Create", "Start"];
const OF_CONTAINERS: [&str; 4] = ["Record", "Bundle", "Rootfs", "Task"];

/// The kinds of sandboxes: by the default handler, by that with a shared pid namespace, which has an
/// init, and held by a pause container. The steps that are the same for all are tried with the first.
const KINDS: [(&str, bool, &[&str]); 3] = [
    ("podbay", false, &OF_PODS),
    ("podbay", true, &["Create", "Start"]),
    ("pause", false, &["Create", "Start"]),
];

/// A kind of sandbox, made in steps one of which goes wrong at some moment.
struct Unlucky {
    handler: &'static str,
    config: v1::PodSandboxConfig,
    moment: String,
}

impl Unlucky {
    fn all(node: &Daemon) -> Vec<Self> {
        let of_kind = |&(handler, shares, steps): &(&'static str, bool, &[&str])| {
            let pod = node.pod("unlucky");
            let config = if shares { sharing(pod) } else { pod };
            let unlucky = move |moment| Self { handler, config: config.clone(), moment };
            moments(steps).into_iter().map(unlucky).collect::<Vec<_>>()
        };
        KINDS.iter().flat_map(of_kind).collect()
    }
}

/// Every step with its two moments: `Network:before`.
fn moments(steps: &[&str]) -> Vec<String> {
    let both = |step: &&str| ["before", "after"].map(|when| format!("{step}:{when}"));
    steps.iter().flat_map(both).collect()
}

#[tokio::test]
async fn a_pod_that_fails_at_any_step_leaves_the_host_untouched() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    for Unlucky { handler, config, moment } in Unlucky::all(&node) {
        node.fault(&format!("pod.{moment}:fail"));
        let why = cri.run_pod_by(&config, handler).await.expect_err(&moment);
        assert!(why.message().contains("a fault was asked for"), "{moment}: {}", why.message());
        assert!(cri.pods().await.unwrap().is_empty(), "{moment}");
        node.assert_untouched(&before, &moment).await;
        node.no_fault();
        let pod = cri.run_pod_by(&config, handler).await;
        let pod = pod.unwrap_or_else(|why| panic!("{moment}: {why}"));
        cri.remove_pod(&pod).await.unwrap();
    }
    node.assert_untouched(&before, "a pod that was lucky at last").await;
}

#[tokio::test]
async fn a_pod_whose_daemon_crashes_at_any_step_is_undone_at_the_next_start() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    for Unlucky { handler, config, moment } in Unlucky::all(&node) {
        node.fault(&format!("pod.{moment}:crash"));
        node.cri().run_pod_by(&config, handler).await.expect_err(&moment);
        node.died(&format!("the daemon crashes: {moment}")).await;
        node.no_fault();
        node.start_again().await;
        let cri = node.cri();
        let none = async || is_true(cri.pods().await.unwrap().is_empty());
        eventually(&format!("no pod is left: {moment}"), none).await;
        node.assert_untouched(&before, &moment).await;
        let pod = cri.run_pod_by(&config, handler).await;
        let pod = pod.unwrap_or_else(|why| panic!("{moment}: {why}"));
        cri.remove_pod(&pod).await.unwrap();
    }
    node.assert_untouched(&before, "a pod that was lucky at last").await;
}

#[tokio::test]
async fn a_pod_that_is_asked_for_again_right_after_a_crash_is_made() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    let config = node.pod("urgent");
    for moment in ["Netns:after", "Network:after", "Start:before", "Start:after"] {
        node.fault(&format!("pod.{moment}:crash"));
        node.cri().run_pod(&config).await.expect_err(moment);
        node.died(&format!("the daemon crashes: {moment}")).await;
        node.no_fault();
        node.start_again().await;
        let cri = node.cri();
        let pod = cri.run_pod(&config).await.unwrap_or_else(|why| panic!("{moment}: {why}"));
        assert!(cri.is_ready(&pod).await.unwrap());
        cri.remove_pod(&pod).await.unwrap();
        node.assert_untouched(&before, moment).await;
    }
}

#[tokio::test]
async fn a_container_that_fails_at_any_step_leaves_the_host_untouched() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let before = node.snapshot_after_the_first_of(&pod).await;
    for moment in moments(&OF_CONTAINERS) {
        node.fault(&format!("container.{moment}:fail"));
        let why = cri.create(&pod, &sleeps("unlucky")).await.expect_err(&moment);
        assert!(why.message().contains("a fault was asked for"), "{moment}: {}", why.message());
        assert!(cri.containers().await.unwrap().is_empty(), "{moment}");
        node.assert_untouched(&before, &moment).await;
        node.no_fault();
        let id = cri.launch(&pod, &sleeps("unlucky")).await;
        let id = id.unwrap_or_else(|why| panic!("{moment}: {why}"));
        cri.remove(&id).await.unwrap();
    }
    node.assert_untouched(&before, "a container that was lucky at last").await;
}

#[tokio::test]
async fn a_container_whose_daemon_crashes_at_any_step_is_undone_at_the_next_start() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    let before = node.snapshot_after_the_first_of(&pod).await;
    for moment in moments(&OF_CONTAINERS) {
        node.fault(&format!("container.{moment}:crash"));
        node.cri().create(&pod, &sleeps("unlucky")).await.expect_err(&moment);
        node.died(&format!("the daemon crashes: {moment}")).await;
        node.no_fault();
        node.start_again().await;
        let cri = node.cri();
        let none = async || is_true(cri.containers().await.unwrap().is_empty());
        eventually(&format!("no container is left: {moment}"), none).await;
        node.assert_untouched(&before, &moment).await;
        assert!(cri.is_ready(&pod).await.unwrap(), "{moment}");
        let id = cri.launch(&pod, &sleeps("unlucky")).await;
        let id = id.unwrap_or_else(|why| panic!("{moment}: {why}"));
        cri.remove(&id).await.unwrap();
    }
    node.assert_untouched(&before, "a container that was lucky at last").await;
}
