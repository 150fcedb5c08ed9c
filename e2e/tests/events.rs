//! What happens to pods and containers, told as it happens.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::time::{Duration, Instant};

use cri_proto::v1::{self, ContainerEventType, ContainerState, PodSandboxState};
use e2e::{Cri, Daemon, Options, host_network, shell, sleeps};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

/// How long what has happened may take to be told, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// Who listens to a daemon.
struct Listener(Streaming<v1::ContainerEventResponse>);

impl Listener {
    async fn to(cri: &Cri) -> Self {
        let answer = cri.runtime().get_container_events(v1::GetEventsRequest {}).await;
        Self(answer.expect("one can listen").into_inner())
    }

    async fn message(&mut self) -> Result<Option<v1::ContainerEventResponse>, Status> {
        timeout(SOON, self.0.message()).await.expect("something is told")
    }

    /// The next event, which must be of this kind, and about this thing.
    async fn hears(&mut self, kind: ContainerEventType, id: &str) -> v1::ContainerEventResponse {
        let event = self.message().await.unwrap().expect("there are more events");
        assert_eq!((event.container_event_type(), event.container_id.as_str()), (kind, id));
        assert!(event.created_at > 0);
        event
    }
}

const CREATED: ContainerEventType = ContainerEventType::ContainerCreatedEvent;
const STARTED: ContainerEventType = ContainerEventType::ContainerStartedEvent;
const STOPPED: ContainerEventType = ContainerEventType::ContainerStoppedEvent;
const DELETED: ContainerEventType = ContainerEventType::ContainerDeletedEvent;

/// The states of the pod and of its containers by their ids, as the event has them.
fn states(event: &v1::ContainerEventResponse) -> (PodSandboxState, Vec<(&str, ContainerState)>) {
    let pod = event.pod_sandbox_status.as_ref().expect("the pod's status is told");
    assert!(!pod.metadata.as_ref().unwrap().uid.is_empty() && pod.created_at > 0);
    let containers = event.containers_statuses.iter();
    (pod.state(), containers.map(|status| (status.id.as_str(), status.state())).collect())
}

async fn a_life_is_told(handler: &str) {
    if handler == "runc" && !e2e::has("runc") {
        return;
    }
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let (mut one, mut other) = (Listener::to(&cri).await, Listener::to(&cri).await);
    let ready = PodSandboxState::SandboxReady;

    let pod = cri.run_pod_by(&node.pod("web"), handler).await.unwrap();
    let event = one.hears(CREATED, &pod).await;
    assert_eq!(states(&event), (ready, vec![]));
    one.hears(STARTED, &pod).await;

    // It ends by itself, and nobody asks.
    let short = cri.create(&pod, &shell("short", "exit 3")).await.unwrap();
    let event = one.hears(CREATED, &short).await;
    assert_eq!(states(&event), (ready, vec![(&*short, ContainerState::ContainerCreated)]));
    cri.start(&short).await.unwrap();
    let event = one.hears(STARTED, &short).await;
    assert_eq!(states(&event).1.len(), 1);
    let event = one.hears(STOPPED, &short).await;
    assert_eq!(states(&event), (ready, vec![(&*short, ContainerState::ContainerExited)]));
    assert_eq!(event.containers_statuses[0].exit_code, 3);

    let long = cri.launch(&pod, &sleeps("long")).await.unwrap();
    one.hears(CREATED, &long).await;
    let event = one.hears(STARTED, &long).await;
    assert_eq!(states(&event).1.len(), 2, "of all containers of the pod");
    cri.stop(&long, 0).await.unwrap();
    one.hears(STOPPED, &long).await;
    cri.remove(&long).await.unwrap();
    let event = one.hears(DELETED, &long).await;
    assert_eq!(states(&event), (ready, vec![(&*short, ContainerState::ContainerExited)]));

    // One that runs, and one that was never started.
    let runs = cri.launch(&pod, &sleeps("runs")).await.unwrap();
    one.hears(CREATED, &runs).await;
    one.hears(STARTED, &runs).await;
    cri.stop_pod(&pod).await.unwrap();
    one.hears(STOPPED, &runs).await;
    let event = one.hears(STOPPED, &pod).await;
    assert_eq!(states(&event).0, PodSandboxState::SandboxNotready);
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    let mut deleted = Vec::new();
    for _ in 0..2 {
        let event = one.message().await.unwrap().unwrap();
        assert_eq!(event.container_event_type(), DELETED);
        deleted.push(event.container_id);
    }
    deleted.sort();
    let mut both = [short, runs];
    both.sort();
    assert_eq!(deleted, both);
    let event = one.hears(DELETED, &pod).await;
    assert_eq!(states(&event), (PodSandboxState::SandboxNotready, vec![]));

    // Nothing more was told: the next is of the next pod.
    let next = cri.run_pod_by(&node.pod("next"), handler).await.unwrap();
    one.hears(CREATED, &next).await;
    other.hears(CREATED, &pod).await;
    other.hears(STARTED, &pod).await;
}

#[tokio::test]
async fn a_life_is_told_by_the_built_in_runtime() {
    a_life_is_told("podbay").await;
}

#[tokio::test]
async fn a_life_is_told_with_a_pause() {
    a_life_is_told("pause").await;
}

#[tokio::test]
async fn a_life_is_told_by_runc() {
    a_life_is_told("runc").await;
}

#[tokio::test]
async fn what_fails_to_be_made_was_never_there() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let mut listener = Listener::to(&cri).await;
    node.fault("pod.Start:after:fail");
    cri.run_pod(&node.pod("web")).await.unwrap_err();
    node.no_fault();
    let pod = cri.run_pod(&node.pod("web")).await.unwrap();
    listener.hears(CREATED, &pod).await;
    listener.hears(STARTED, &pod).await;
    node.fault("container.Task:after:fail");
    cri.create(&pod, &sleeps("c")).await.unwrap_err();
    node.no_fault();
    let id = cri.create(&pod, &e2e::container("c", &["/no/such/program"])).await;
    // By the runtime, it is refused at once or when it is to start.
    if let Ok(id) = id {
        listener.hears(CREATED, &id).await;
        cri.start(&id).await.unwrap_err();
        listener.hears(STOPPED, &id).await;
    }
    let id = cri.create(&pod, &sleeps("d")).await.unwrap();
    listener.hears(CREATED, &id).await;
    // One that was never started has not run, and yet it ends with its pod.
    cri.stop_pod(&pod).await.unwrap();
    listener.hears(STOPPED, &id).await;
    listener.hears(STOPPED, &pod).await;
}

#[tokio::test]
async fn a_sandbox_that_ends_by_itself_is_told_of() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod_by(&node.pod("web"), "pause").await.unwrap();
    let mut listener = Listener::to(&cri).await;
    let own = format!("{pod}/{pod}");
    let pause = e2e::processes().into_iter().find(|process| process.cgroups.contains(&own));
    pause.expect("a pause holds the pod").kill();
    let event = listener.hears(STOPPED, &pod).await;
    assert_eq!(states(&event).0, PodSandboxState::SandboxNotready);
}

#[tokio::test]
async fn a_listener_does_not_keep_the_daemon_from_ending() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("web")).await.unwrap();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let mut listener = Listener::to(&cri).await;
    let begun = Instant::now();
    assert!(node.terminate().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let end = listener.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");

    // What was there before is no news; what happens to it is.
    node.start_again().await;
    let cri = node.cri();
    let mut listener = Listener::to(&cri).await;
    cri.stop(&id, 0).await.unwrap();
    listener.hears(STOPPED, &id).await;
}

#[tokio::test]
async fn a_listener_that_is_too_slow_is_sent_away_and_nobody_waits_for_it() {
    /// Four events each: more than what a listener may be behind, and what is on its way to it.
    const PODS: usize = 400;
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let (mut slow, mut quick) = (Listener::to(&cri).await, Listener::to(&cri).await);
    let counting = tokio::spawn(async move {
        for _ in 0..4 * PODS {
            quick.message().await.unwrap().expect("who listens misses nothing");
        }
    });
    let mut config = host_network(node.pod("web"));
    // Long enough that few fit on the way.
    config.annotations.insert("long".into(), "x".repeat(16 << 10));
    for n in 0..PODS {
        config.metadata.as_mut().unwrap().attempt = u32::try_from(n).unwrap();
        let pod = cri.run_pod(&config).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
    counting.await.unwrap();
    let mut heard = 0;
    let end = loop {
        match slow.message().await {
            Ok(event) => heard += usize::from(event.expect("it ends by an error").created_at > 0),
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(end.message().contains("list all"), "{end}");
    assert!(0 < heard && heard < 4 * PODS, "{heard}");
    assert!(node.said().contains("a listener was too slow"));
}

#[tokio::test]
async fn a_status_tells_of_containers_and_when_it_was_so() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("web")).await.unwrap();
    let other = cri.run_pod(&node.pod("other")).await.unwrap();
    cri.launch(&other, &sleeps("c")).await.unwrap();
    let first = cri.pod_verbose(&pod, false).await.unwrap();
    assert!(first.timestamp > 0 && first.containers_statuses.is_empty());
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let second = cri.pod_verbose(&pod, false).await.unwrap();
    assert!(second.timestamp > first.timestamp);
    assert_eq!(second.containers_statuses, [cri.container(&id).await.unwrap()]);
}
