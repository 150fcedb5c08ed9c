//! The daemon, the supervisors and the machine go away at any time, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use cri_proto::v1::{ContainerState, PodSandboxState};
use e2e::{
    Cri, Daemon, Options, Process, eventually, eventually_within, is_true, lines, real_cni,
    refused, shell, sleeps, text,
};
use tonic::Code;

/// The pid of the pod's supervisor, as it has written it down.
fn shim_of(node: &Daemon, pod: &str) -> i32 {
    let file = node.place.state().join("pods").join(pod).join("shim.pid");
    let text = fs::read_to_string(file).unwrap();
    let life: serde_json::Value = serde_json::from_str(&text).unwrap();
    i32::try_from(life["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    Process::of(pid).expect("it runs").kill();
}

async fn gone(pid: i32) {
    let is_gone = async || is_true(Process::of(pid).is_none_or(|process| process.zombie));
    eventually(&format!("the end of process {pid}"), is_gone).await;
}

async fn becomes(cri: &Cri, id: &str, wanted: ContainerState, within: Duration) {
    let state = async || is_true(cri.container(id).await.unwrap().state() == wanted);
    eventually_within(within, &format!("container {id} is {wanted:?}"), state).await;
}

#[tokio::test]
async fn pods_and_containers_do_not_notice_that_the_daemon_is_killed() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    let (config, cri) = (node.pod("p"), node.cri());
    let pod = cri.run_pod(&config).await.unwrap();
    let stopped = cri.run_pod(&node.pod("stopped")).await.unwrap();
    cri.stop_pod(&stopped).await.unwrap();
    let talks = "n=0; while true; do echo line $n; n=$((n + 1)); usleep 3000; done";
    let talks = cri.launch(&pod, &shell("talks", talks)).await.unwrap();
    let created = cri.create(&pod, &sleeps("created")).await.unwrap();
    let ended = cri.launch(&pod, &shell("ended", "exit 4")).await.unwrap();
    let status = cri.ended(&ended).await.unwrap();
    let (pid, address) = (cri.pid(&talks).await.unwrap(), cri.address(&pod).await.unwrap());
    let (shim, shown) = (shim_of(&node, &pod), cri.container(&talks).await.unwrap());

    for round in 0..3 {
        node.kill();
        node.start_again().await;
        let cri = node.cri();
        assert!(cri.is_ready(&pod).await.unwrap(), "round {round}");
        assert_eq!(cri.address(&pod).await.unwrap(), address);
        assert!(!cri.is_ready(&stopped).await.unwrap());
        assert_eq!(cri.container(&talks).await.unwrap(), shown, "as it was");
        assert_eq!(cri.container(&ended).await.unwrap(), status, "as it died");
        assert_eq!(cri.pid(&talks).await.unwrap(), pid);
        assert_eq!(shim_of(&node, &pod), shim);
        assert_eq!(cri.shell(&talks, "echo here").await.unwrap(), "here");
        assert_eq!(cri.run_pod(&config).await.unwrap(), pod, "the name is still its");
        let mut other = config.clone();
        other.hostname = "other".into();
        refused(cri.run_pod(&other).await, Code::AlreadyExists);
    }
    let cri = node.cri();
    cri.start(&created).await.expect("what was created can still be started");
    cri.stop(&talks, 1).await.unwrap();
    let said = text(&node.log_of("p", "talks"), "stdout");
    let numbered = said.lines().enumerate().all(|(n, line)| line == format!("line {n}"));
    assert!(numbered && said.lines().count() > 100, "{said}");
    cri.remove_all().await.unwrap();
    node.assert_untouched(&before, "pods that outlived the daemon").await;
}

#[tokio::test]
async fn what_ends_while_the_daemon_is_away_ends_with_its_own_code() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let (cri, gate) = (node.cri(), node.folder("gate"));
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let mut ids = Vec::new();
    for code in [0, 1, 42, 255] {
        let wait = format!("while ! test -e /gate/open; do usleep 5000; done; exit {code}");
        let mut config = shell(&format!("c{code}"), &wait);
        config.mounts = vec![e2e::mount(&gate, "/gate")];
        ids.push((code, cri.launch(&pod, &config).await.unwrap()));
    }
    let mut pids = Vec::new();
    for (_, id) in &ids {
        pids.push(cri.pid(id).await.unwrap());
    }
    node.kill();
    fs::write(gate.join("open"), "").unwrap();
    for pid in pids {
        gone(pid).await;
    }
    node.start_again().await;
    let cri = node.cri();
    for (code, id) in ids {
        let status = cri.ended(&id).await.unwrap();
        assert_eq!(status.exit_code, code);
        assert!(status.finished_at > status.started_at);
        cri.remove(&id).await.unwrap();
    }
    assert!(cri.is_ready(&pod).await.unwrap());
}

#[tokio::test]
async fn a_daemon_that_is_asked_to_end_lets_its_pods_run() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    let id = node.cri().launch(&pod, &sleeps("c")).await.unwrap();
    let status = node.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!node.place.socket().exists());
    node.start_again().await;
    assert!(node.cri().is_ready(&pod).await.unwrap());
    assert_eq!(node.cri().shell(&id, "echo here").await.unwrap(), "here");
}

/// A kind of sandbox, and whether it outlives its supervisor: one with a process does not.
#[derive(Clone, Copy)]
struct Kind {
    handler: &'static str,
    shares_processes: bool,
    outlives: bool,
}

const PINNED: Kind = Kind { handler: "podbay", shares_processes: false, outlives: true };
const WITH_INIT: Kind = Kind { handler: "podbay", shares_processes: true, outlives: false };
const WITH_PAUSE: Kind = Kind { handler: "pause", shares_processes: false, outlives: false };

impl Kind {
    fn config(self, node: &Daemon) -> cri_proto::v1::PodSandboxConfig {
        let pod = node.pod("p");
        if self.shares_processes { e2e::sharing(pod) } else { pod }
    }

    async fn run(self, node: &Daemon) -> String {
        node.cri().run_pod_by(&self.config(node), self.handler).await.unwrap()
    }

    /// What becomes of a pod whose supervisor was killed: it is not ready, or its next container gets
    /// another one.
    async fn assert_fate(self, cri: &e2e::Cri, pod: &str) {
        if self.outlives {
            let next = cri.launch(pod, &sleeps("next")).await.expect("it gets another supervisor");
            assert_eq!(cri.shell(&next, "hostname").await.unwrap(), "p");
            return assert!(cri.is_ready(pod).await.unwrap());
        }
        let gone = async || is_true(!cri.is_ready(pod).await.unwrap());
        eventually("its pod is not ready", gone).await;
    }
}

#[tokio::test]
async fn a_supervisor_that_is_killed_costs_its_containers_and_no_other_pods() {
    a_supervisor_is_killed(PINNED).await;
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_a_pod_with_an_init_with_it() {
    a_supervisor_is_killed(WITH_INIT).await;
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_a_pod_with_a_pause_with_it() {
    a_supervisor_is_killed(WITH_PAUSE).await;
}

async fn a_supervisor_is_killed(kind: Kind) {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    let cri = node.cri();
    let (config, other) = (kind.config(&node), cri.run_pod(&node.pod("other")).await.unwrap());
    let pod = kind.run(&node).await;
    let bystander = cri.launch(&other, &sleeps("c")).await.unwrap();
    let running = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let created = cri.create(&pod, &sleeps("created")).await.unwrap();
    let ended = cri.launch(&pod, &shell("ended", "exit 4")).await.unwrap();
    cri.ended(&ended).await.unwrap();
    let pid = cri.pid(&running).await.unwrap();

    kill(shim_of(&node, &pod));
    becomes(&cri, &running, ContainerState::ContainerExited, Duration::from_secs(5)).await;
    let status = cri.container(&running).await.unwrap();
    assert_eq!(status.exit_code, 137);
    assert!(!status.message.is_empty());
    gone(pid).await;
    assert_eq!(cri.container(&ended).await.unwrap().exit_code, 4, "the dead stay as they died");
    becomes(&cri, &created, ContainerState::ContainerExited, Duration::from_secs(5)).await;
    kind.assert_fate(&cri, &pod).await;
    assert!(cri.is_ready(&other).await.unwrap());
    assert_eq!(cri.shell(&bystander, "echo here").await.unwrap(), "here");

    for id in [&running, &created, &ended] {
        cri.stop(id, 1).await.unwrap();
        cri.remove(id).await.unwrap();
    }
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    let again = cri.run_pod_by(&config, kind.handler).await.expect("the name is free");
    cri.launch(&again, &sleeps("c")).await.unwrap();
    cri.remove_all().await.unwrap();
    node.assert_untouched(&before, "a pod whose supervisor was killed").await;
}

#[tokio::test]
async fn a_supervisor_that_is_killed_while_the_daemon_is_away_is_noticed() {
    a_supervisor_is_killed_meanwhile(PINNED).await;
}

#[tokio::test]
async fn a_supervisor_that_is_killed_with_its_init_while_the_daemon_is_away_is_noticed() {
    a_supervisor_is_killed_meanwhile(WITH_INIT).await;
}

async fn a_supervisor_is_killed_meanwhile(kind: Kind) {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    let pod = kind.run(&node).await;
    let id = node.cri().launch(&pod, &sleeps("c")).await.unwrap();
    let shim = shim_of(&node, &pod);
    node.kill();
    kill(shim);
    gone(shim).await;
    node.start_again().await;
    let cri = node.cri();
    becomes(&cri, &id, ContainerState::ContainerExited, Duration::from_secs(5)).await;
    kind.assert_fate(&cri, &pod).await;
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    node.assert_untouched(&before, "a pod whose supervisor was killed").await;
}

#[tokio::test]
async fn a_pod_whose_pause_is_killed_is_not_ready_and_goes_away() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    for kind in [WITH_PAUSE, WITH_INIT] {
        a_pause_is_killed(&node, kind).await;
        node.assert_untouched(&before, "a pod whose pause was killed").await;
    }
}

async fn a_pause_is_killed(node: &Daemon, kind: Kind) {
    let (cri, pod) = (node.cri(), kind.run(node).await);
    cri.launch(&pod, &sleeps("c")).await.unwrap();
    let is_pause = |it: &Process| it.line.starts_with("/pause") && it.cgroups.contains(&pod);
    e2e::processes().into_iter().find(is_pause).expect("it has one").kill();
    let ready = async || is_true(!cri.is_ready(&pod).await.unwrap());
    eventually("its pod is not ready", ready).await;
    refused(cri.create(&pod, &sleeps("late")).await, Code::FailedPrecondition);
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn after_a_reboot_pods_are_not_ready_and_can_be_removed() {
    let Some(mut node) = Daemon::start_in_another_boot(Options::default()).await else { return };
    let cri = node.cri();
    let mut config = node.pod("p");
    config.port_mappings = vec![cri_proto::v1::PortMapping {
        container_port: 80,
        host_port: e2e::free_port().into(),
        ..Default::default()
    }];
    let pod = cri.run_pod(&config).await.unwrap();
    let running = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let ended = cri.launch(&pod, &shell("ended", "exit 4")).await.unwrap();
    cri.ended(&ended).await.unwrap();
    // The last, for what is made is on the disk at once, with all that was before.
    let created = cri.create(&pod, &sleeps("created")).await.unwrap();
    assert_eq!(leases(&node), 2, "an address and a port");
    node.power_off().await;

    node.start_again().await;
    let cri = node.cri();
    let pods = cri.pods().await.unwrap();
    assert_eq!((pods.len(), pods[0].state()), (1, PodSandboxState::SandboxNotready));
    becomes(&cri, &running, ContainerState::ContainerExited, Duration::from_secs(5)).await;
    becomes(&cri, &created, ContainerState::ContainerExited, Duration::from_secs(5)).await;
    assert_eq!(cri.container(&ended).await.unwrap().exit_code, 4, "the dead stay as they died");
    let lost = cri.container(&running).await.unwrap();
    assert!(lost.exit_code != 0 && !lost.message.is_empty(), "{lost:?}");
    eventually("its address and its port are free", async || is_true(leases(&node) == 0)).await;
    let mut next = config.clone();
    next.metadata.as_mut().unwrap().attempt = 1;
    let next = cri.run_pod(&next).await.expect("the next attempt has the port");
    cri.launch(&next, &sleeps("c")).await.expect("images outlive a reboot");
    cri.remove_all().await.unwrap();
    let before = node.warm_snapshot().await;
    assert_eq!(leases(&node), 0);
    assert!(before.has_no("process") && before.has_no("mount"), "{before:?}");
}

#[tokio::test]
async fn what_a_stopped_pod_gave_back_and_the_disk_still_has_after_a_reboot_is_given_back() {
    let Some(mut node) = Daemon::start_in_another_boot(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("stopped")).await.unwrap();
    let held = fs::read_dir(node.place.root().join("network")).unwrap().next().unwrap();
    let lease = held.unwrap().path();
    let holder = fs::read_link(&lease).unwrap();
    cri.stop_pod(&pod).await.unwrap();
    assert_eq!(leases(&node), 0);
    // What is made is on the disk at once, with all that was before.
    cri.run_pod(&node.pod("next")).await.unwrap();
    node.power_off().await;
    let _ = fs::remove_file(&lease);
    std::os::unix::fs::symlink(&holder, &lease).unwrap();

    node.start_again().await;
    eventually("no address is held", async || is_true(leases(&node) == 0)).await;
    let cri = node.cri();
    assert_eq!(cri.pods().await.unwrap().len(), 2);
    cri.remove_all().await.unwrap();
}

#[tokio::test]
async fn what_a_plugin_gave_back_and_the_disk_still_has_after_a_reboot_is_given_back() {
    let options = Options::default().by_cni();
    let Some(mut node) = Daemon::start_in_another_boot(options).await else { return };
    if !real_cni(&node.place) {
        return;
    }
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("stopped")).await.unwrap();
    let held = addresses_of_plugins(&node);
    assert_eq!(held.len(), 1, "{held:?}");
    let (lease, holder) = (&held[0], fs::read(&held[0]).unwrap());
    cri.stop_pod(&pod).await.unwrap();
    assert!(addresses_of_plugins(&node).is_empty());
    // What is made is on the disk at once, with all that was before.
    cri.run_pod(&node.pod("next")).await.unwrap();
    node.power_off().await;
    fs::write(lease, holder).unwrap();

    node.start_again().await;
    eventually("no address is held", async || is_true(addresses_of_plugins(&node).is_empty()))
        .await;
    node.cri().remove_all().await.unwrap();
}

/// The files that host-local has for addresses that it has given away.
fn addresses_of_plugins(node: &Daemon) -> Vec<PathBuf> {
    let networks = fs::read_dir(node.place.ipam()).into_iter().flatten().flatten();
    let files = networks.flat_map(|network| fs::read_dir(network.path()).unwrap().flatten());
    let addresses = files.filter(|file| {
        file.file_name().to_str().is_some_and(|name| name.parse::<IpAddr>().is_ok())
    });
    addresses.map(|file| file.path()).collect()
}

/// How many addresses and ports are held.
fn leases(node: &Daemon) -> usize {
    fs::read_dir(node.place.root().join("network")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn records_that_cannot_be_trusted_are_set_aside_and_can_be_removed() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let before = node.warm_snapshot().await;
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    let id = node.cri().launch(&pod, &sleeps("c")).await.unwrap();
    node.kill();
    fs::remove_file(node.place.root().join("records.key")).unwrap();
    node.start_again().await;
    let cri = node.cri();
    assert!(cri.pods().await.unwrap().is_empty());
    let held = cri.quarantine().await.unwrap();
    let mut keys: Vec<_> = held.iter().map(|it| it.key.clone()).collect();
    keys.sort();
    assert_eq!(keys, [format!("containers/{id}"), format!("pods/{pod}")]);
    assert!(held.iter().all(|it| it.reason.contains("seal") && it.time > 0), "{held:?}");
    let kinds: Vec<_> = held.iter().map(|it| it.kind.as_str()).collect();
    assert!(kinds.contains(&"pod") && kinds.contains(&"container"), "{kinds:?}");
    let other = cri.run_pod(&node.pod("other")).await.expect("others are not concerned");
    cri.remove_pod(&other).await.unwrap();

    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert_eq!(cri.quarantine().await.unwrap().len(), 2, "they are kept");
    refused(cri.discard("pods/0123").await, Code::NotFound);
    for key in keys {
        cri.discard(&key).await.unwrap();
    }
    assert!(cri.quarantine().await.unwrap().is_empty());
    node.assert_untouched(&before, "a pod whose record could not be trusted").await;
}

#[tokio::test]
async fn the_store_is_begun_anew_when_it_is_nothing_but_damage() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    node.cri().remove_pod(&pod).await.unwrap();
    node.kill();
    let records = node.place.root().join("records.redb");
    let length = fs::metadata(&records).unwrap().len();
    fs::write(&records, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    node.start_again().await;
    assert!(node.said().contains("damaged"), "{}", node.said());
    let aside = fs::read_dir(node.place.root()).unwrap().flatten();
    let aside = aside.filter(|it| it.file_name().to_string_lossy().contains("damaged"));
    assert_eq!(aside.count(), 1, "it is kept");
    node.cri().run_pod(&node.pod("p")).await.unwrap();
}

#[tokio::test]
async fn every_line_of_a_log_is_there_once_although_the_daemon_is_killed_and_logs_are_rotated() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    let talks = "n=0; while [ $n -lt 4000 ]; do echo line $n; n=$((n + 1)); usleep 300; done";
    let id = node.cri().launch(&pod, &shell("talks", talks)).await.unwrap();
    let log = node.log_of("p", "talks");
    let mut said = String::new();
    let mut kept = Vec::new();
    for round in 0..6 {
        let more = async || is_true(fs::metadata(&log).is_ok_and(|file| file.len() > 4000));
        eventually("it says more", more).await;
        node.kill();
        let renamed = log.with_extension(format!("log.{round}"));
        fs::rename(&log, &renamed).unwrap();
        node.start_again().await;
        node.cri().reopen_log(&id).await.unwrap();
        kept.push(renamed);
    }
    assert_eq!(node.cri().ended(&id).await.unwrap().exit_code, 0);
    kept.push(log);
    for part in &kept {
        assert!(lines(part).iter().all(|line| !line.partial));
        said += &text(part, "stdout");
    }
    let all: String = (0..4000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(said, all);
}
