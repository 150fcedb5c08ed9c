//! Sandboxes that another process keeps: what its end, its absence and its silence mean for pods.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{collections::BTreeMap, time::Duration};

use cri_proto::v1::{ContainerState, PodSandboxState};
use e2e::{Cri, Daemon, Options, Sandboxer, eventually, is_true, refused, sharing, sleeps};
use tonic::Code;

/// How often the sandboxer is killed, and under how many pods.
const KILLS: usize = 20;
const PODS: usize = 20;

/// A daemon whose sandboxer is not started yet. None, and a word about it, where that cannot be.
async fn bare() -> Option<Daemon> {
    let mut node = Daemon::prepare(Options::default()).await?;
    let place = node.place.clone();
    node.reconfigure(|options| options.with_sandboxer(&place));
    node.start_again().await;
    node.make_image().await;
    Some(node)
}

/// What may not change of pods and containers: who they are, and which processes.
async fn identities(cri: &Cri) -> BTreeMap<String, i32> {
    let mut all = BTreeMap::new();
    for pod in cri.pods().await.unwrap() {
        assert_eq!(pod.state(), PodSandboxState::SandboxReady, "{}", pod.id);
        all.insert(pod.id, 0);
    }
    for container in cri.containers().await.unwrap() {
        assert_eq!(container.state(), ContainerState::ContainerRunning, "{}", container.id);
        all.insert(container.id.clone(), cri.pid(&container.id).await.unwrap());
    }
    all
}

#[tokio::test]
async fn pods_do_not_notice_that_their_sandboxer_is_killed() {
    let Some(node) = bare().await else { return };
    let (mut sandboxer, cri) = (Sandboxer::start(&node.place).await, node.cri());
    let before = node.warm_snapshot().await;
    for n in 0..PODS {
        let config = node.pod(&format!("p{n}"));
        // Every fifth has an init.
        let config = if n % 5 == 0 { sharing(config) } else { config };
        let pod = cri.run_pod_by(&config, "sandboxer").await.unwrap();
        cri.launch(&pod, &sleeps("c")).await.unwrap();
    }
    let at_first = identities(&cri).await;
    assert_eq!(at_first.len(), 2 * PODS);
    let some = cri.containers().await.unwrap().pop().unwrap().id;
    for n in 0..KILLS {
        sandboxer.kill();
        assert_eq!(identities(&cri).await, at_first, "while it is away");
        assert_eq!(cri.shell(&some, "echo here").await.unwrap(), "here");
        sandboxer.start_again().await;
        let pod = cri.run_pod_by(&node.pod(&format!("next{n}")), "sandboxer").await;
        let pod = pod.expect("calls go on");
        cri.launch(&pod, &sleeps("c")).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
        assert_eq!(identities(&cri).await, at_first, "when it is back");
    }
    cri.remove_all().await.unwrap();
    node.assert_untouched(&before, "pods whose sandboxer was killed").await;
}

#[tokio::test]
async fn a_sandboxer_that_hangs_delays_no_other_handlers_pods() {
    let Some(node) = bare().await else { return };
    let (sandboxer, cri) = (Sandboxer::start(&node.place).await, node.cri());
    let kept = cri.run_pod_by(&node.pod("kept"), "sandboxer").await.unwrap();
    sandboxer.freeze();
    let (hanging, config) = (cri.clone(), node.pod("hanging"));
    let hanging = tokio::spawn(async move { hanging.run_pod_by(&config, "sandboxer").await });
    for n in 0..100 {
        let pod = cri.run_pod(&node.pod(&format!("p{n}"))).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
    assert!(cri.is_ready(&kept).await.unwrap(), "it is not known to be otherwise");
    assert!(!hanging.is_finished(), "nobody has answered it");
    sandboxer.thaw();
    let pod = hanging.await.unwrap().expect("it was only late");
    cri.launch(&pod, &sleeps("c")).await.unwrap();
    cri.remove_all().await.unwrap();
}

#[tokio::test]
async fn a_sandboxer_that_is_not_there_is_named_and_nothing_is_left() {
    let Some(node) = bare().await else { return };
    // What it keeps for itself is there from its first start on.
    drop(Sandboxer::start(&node.place).await);
    let (cri, before) = (node.cri(), node.warm_snapshot().await);
    let why = refused(cri.run_pod_by(&node.pod("p"), "sandboxer").await, Code::Unavailable);
    assert!(why.contains("namespaces") && why.contains("Create"), "{why}");
    // What may have been made there cannot be known to be gone before it is asked.
    let sandboxer = Sandboxer::start(&node.place).await;
    let pod = cri.run_pod_by(&node.pod("p"), "sandboxer").await.expect("it is there now");
    cri.launch(&pod, &sleeps("c")).await.unwrap();
    cri.remove_all().await.unwrap();
    node.assert_untouched(&before, "a sandboxer that came late").await;
    drop(sandboxer);
}

#[tokio::test]
async fn a_sandbox_that_could_not_be_finished_is_gone_at_the_sandboxer_too() {
    let Some(mut node) = bare().await else { return };
    let sandboxer = Sandboxer::start(&node.place).await;
    let before = node.warm_snapshot().await;
    for moment in ["Create:before", "Create:after", "Start:before", "Start:after"] {
        for what in ["fail", "crash"] {
            node.fault(&format!("pod.{moment}:{what}"));
            node.cri().run_pod_by(&node.pod("p"), "sandboxer").await.expect_err(moment);
            if what == "crash" {
                node.died("the daemon crashes").await;
                node.no_fault();
                node.start_again().await;
            }
            node.no_fault();
            let cri = node.cri();
            let none = async || is_true(cri.pods().await.unwrap().is_empty());
            eventually("no pod is left", none).await;
            node.assert_untouched(&before, moment).await;
        }
    }
    drop(sandboxer);
}

#[tokio::test]
async fn a_pod_whose_supervisor_is_killed_gets_another_by_its_sandboxer() {
    let Some(node) = bare().await else { return };
    let (sandboxer, cri) = (Sandboxer::start(&node.place).await, node.cri());
    let pod = cri.run_pod_by(&node.pod("p"), "sandboxer").await.unwrap();
    let container = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let mut shims = e2e::processes();
    shims.retain(|it| !it.zombie && it.line.contains(&format!("--pod {pod}")));
    shims.first().expect("it has one").kill();
    let ended = async || {
        let state = cri.container(&container).await.unwrap().state();
        is_true(state == ContainerState::ContainerExited)
    };
    eventually("its container is told of as ended", ended).await;
    let next = cri.launch(&pod, &sleeps("next")).await.expect("there is another supervisor");
    assert_eq!(cri.shell(&next, "hostname").await.unwrap(), "p");
    cri.remove_all().await.unwrap();
    drop(sandboxer);
}

#[tokio::test]
async fn a_sandboxer_that_is_away_for_longer_than_its_grace_makes_its_pods_not_ready() {
    let Some(mut node) = bare().await else { return };
    node.terminate().await;
    node.set("sandboxers.namespaces.grace", r#""1s""#);
    let mut sandboxer = Sandboxer::start(&node.place).await;
    node.start_again().await;
    let cri = node.cri();
    let pod = cri.run_pod_by(&node.pod("p"), "sandboxer").await.unwrap();
    sandboxer.kill();
    assert!(cri.is_ready(&pod).await.unwrap(), "it may come back");
    let not_ready = async || is_true(!cri.is_ready(&pod).await.unwrap());
    e2e::eventually_within(Duration::from_secs(20), "its grace is over", not_ready).await;
    sandboxer.start_again().await;
    cri.remove_pod(&pod).await.expect("it can be removed when the sandboxer is back");
}
