//! User namespaces: pods whose root is nobody on the host.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{fs, os::unix::fs::MetadataExt};

use cri_proto::v1::{self, NamespaceMode};
use e2e::{Daemon, Options, host_network, mount, refused, security, sharing, sleeps};
use tonic::Code;

const ROOT: u32 = 70_000;

fn maps() -> Vec<v1::IdMapping> {
    vec![v1::IdMapping { host_id: ROOT, container_id: 0, length: 65_536 }]
}

fn options() -> v1::UserNamespace {
    v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: maps(), gids: maps() }
}

fn in_own_users(mut pod: v1::PodSandboxConfig) -> v1::PodSandboxConfig {
    let context = pod.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default().userns_options = Some(options());
    pod
}

/// The uid, on the host, of a process.
fn owner(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn run(handler: &str) -> Option<(Daemon, String)> {
    if handler == "runc" && !e2e::has("runc") {
        return None;
    }
    let node = Daemon::start(Options::default()).await?;
    let status = node.cri().runtime().status(v1::StatusRequest::default()).await.unwrap();
    let handlers = status.into_inner().runtime_handlers;
    let ours = handlers.iter().find(|it| it.name == handler).unwrap();
    if !ours.features.unwrap_or_default().user_namespaces {
        e2e::skip("this kernel has no user namespaces, or cannot map this filesystem");
        return None;
    }
    let pod = node.cri().run_pod_by(&in_own_users(node.pod("users")), handler).await.unwrap();
    Some((node, pod))
}

async fn root_is_root_inside_and_nobody_outside(handler: &str) {
    let Some((node, pod)) = run(handler).await else { return };
    let cri = node.cri();
    let folder = node.folder("volume");
    fs::write(folder.join("roots"), "the host's\n").unwrap();
    let mut config = sleeps("c");
    config.mounts =
        vec![v1::Mount { uid_mappings: maps(), gid_mappings: maps(), ..mount(&folder, "/volume") }];
    let id = cri.launch(&pod, &config).await.unwrap();
    assert_eq!(owner(cri.pid(&id).await.unwrap()), ROOT);
    let say = async |line: &str| cri.shell(&id, line).await.unwrap();
    let map = say("cat /proc/self/uid_map").await;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "70000", "65536"]);
    assert_eq!(say("id -u; stat -c %u /bin/busybox /etc/hosts /volume/roots").await, "0\n0\n0\n0");
    // Its root filesystem, its files and its volume are its own to change.
    say("echo more >> /etc/hosts && mkdir /new && chown 7:8 /new && echo x > /volume/made").await;
    assert_eq!(say("stat -c %u:%g /new").await, "7:8");
    assert_eq!(fs::metadata(folder.join("made")).unwrap().uid(), 0, "on the host it is root's");
    // What is the node's is not.
    let change = "echo 1 > /proc/sys/vm/swappiness";
    assert!(cri.shell(&id, change).await.is_err(), "the node's memory");
    assert_eq!(say("cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await, "0");
    assert_eq!(say("echo x > /dev/null; head -c 3 /dev/zero | wc -c").await, "3");
    assert_eq!(say("hostname").await, node.pod("users").hostname);
}

async fn it_leaves_nothing(handler: &str) {
    let Some((node, first)) = run(handler).await else { return };
    let cri = node.cri();
    cri.remove_pod(&first).await.unwrap();
    let before = node.settled_snapshot().await;
    for config in [node.pod("one"), sharing(node.pod("two"))] {
        let pod = cri.run_pod_by(&in_own_users(config), handler).await.unwrap();
        cri.launch(&pod, &sleeps("c")).await.unwrap();
        cri.stop_pod(&pod).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
    node.assert_untouched(&before, "pods with users of their own").await;
}

e2e::by_handlers! {
    { with_pinned_namespaces: "podbay", with_a_pause: "pause", by_runc: "runc" }
    [root_is_root_inside_and_nobody_outside, it_leaves_nothing]
}

#[tokio::test]
async fn processes_may_be_shared_and_the_network_may_be_the_nodes() {
    let Some((node, _)) = run("podbay").await else { return };
    let cri = node.cri();
    for config in [sharing(node.pod("sharing")), host_network(node.pod("hosts"))] {
        let name = config.metadata.clone().unwrap().name;
        let pod = cri.run_pod(&in_own_users(config)).await.unwrap();
        let mut config = sleeps("c");
        if name == "sharing" {
            let options = security(&mut config).namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Pod.into();
        }
        let id = cri.launch(&pod, &config).await.unwrap();
        assert_eq!(owner(cri.pid(&id).await.unwrap()), ROOT, "{name}");
        let seen = cri.shell(&id, "ls /sys/class/net; cat /proc/1/cmdline").await.unwrap();
        assert!(seen.contains("lo"), "{name}: {seen}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_finds_them_again() {
    let Some((mut node, pod)) = run("podbay").await else { return };
    let id = node.cri().launch(&pod, &sleeps("c")).await.unwrap();
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert_eq!(cri.shell(&id, "id -u").await.unwrap(), "0");
    let more = cri.launch(&pod, &sleeps("more")).await.unwrap();
    assert_eq!(owner(cri.pid(&more).await.unwrap()), ROOT);
    cri.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn what_no_user_namespace_can_be_is_refused_with_its_field() {
    let Some((node, pod)) = run("podbay").await else { return };
    let cri = node.cri();
    let field = "config.linux.security_context.namespace_options.userns_options";
    let with = |change: &dyn Fn(&mut v1::NamespaceOption)| {
        let mut config = in_own_users(node.pod("bad"));
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        change(context.namespace_options.as_mut().unwrap());
        config
    };
    let users = |change: fn(&mut v1::UserNamespace)| {
        with(&|options| change(options.userns_options.as_mut().unwrap()))
    };
    for config in [
        users(|it| it.uids.push(maps()[0])),
        users(|it| it.uids.clear()),
        users(|it| it.gids[0].host_id += 1),
        users(|it| it.uids[0].container_id = 1),
        users(|it| it.uids[0].length = 0),
        users(|it| it.uids[0].host_id = u32::MAX),
        users(|it| it.mode = NamespaceMode::Container.into()),
        users(|it| it.mode = NamespaceMode::Node.into()),
        with(&|options| options.pid = NamespaceMode::Node.into()),
        with(&|options| options.ipc = NamespaceMode::Node.into()),
    ] {
        let why = refused(cri.run_pod(&config).await, Code::InvalidArgument);
        assert!(why.contains(field), "{why}");
    }
    let mut other = sleeps("c");
    let mut not_the_pods = options();
    for maps in [&mut not_the_pods.uids, &mut not_the_pods.gids] {
        maps[0].host_id += 1;
    }
    security(&mut other).namespace_options.get_or_insert_default().userns_options =
        Some(not_the_pods);
    let why = refused(cri.create(&pod, &other).await, Code::InvalidArgument);
    assert!(why.contains(field), "{why}");
}
