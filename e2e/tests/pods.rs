//! Pod sandboxes, as the kubelet runs, looks at, stops and removes them.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{collections::BTreeMap, time::Duration};

use cri_proto::v1;
use e2e::{Daemon, Options, Plugin, eventually, host_network, is_true, refused, shell, sleeps};
use futures_util::future::join_all;
use tonic::Code;

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn linux(pod: &mut v1::PodSandboxConfig) -> &mut v1::LinuxPodSandboxConfig {
    pod.linux.get_or_insert_default()
}

#[tokio::test]
async fn a_pod_is_shown_as_it_was_asked_for_from_its_run_to_its_removal() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let mut config = node.pod("web");
    config.labels = pairs(&[("app", "web"), ("io.kubernetes.pod.name", "web"), ("empty", "")]);
    config.annotations = pairs(&[("note", "two\nlines, \"quoted\" — and ünicode"), ("x/y", "z")]);

    let id = cri.run_pod(&config).await.unwrap();
    let status = cri.pod(&id).await.unwrap();
    assert_eq!(status.state(), v1::PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, config.metadata);
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
    assert!(status.created_at > 1_700_000_000_000_000_000, "{}", status.created_at);
    let address = status.network.unwrap().ip;
    assert!(address.starts_with(&node.place.subnet(false)), "{address}");
    let listed = cri.pods().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, &listed[0].labels), (&id, &config.labels));
    assert_eq!(listed[0].created_at, status.created_at);

    cri.stop_pod(&id).await.unwrap();
    let status = cri.pod(&id).await.unwrap();
    assert_eq!(status.state(), v1::PodSandboxState::SandboxNotready);
    assert_eq!((&status.labels, &status.annotations), (&config.labels, &config.annotations));
    cri.stop_pod(&id).await.expect("a stopped pod can be stopped");

    cri.remove_pod(&id).await.unwrap();
    refused(cri.pod(&id).await, Code::NotFound);
    assert!(cri.pods().await.unwrap().is_empty());
    cri.remove_pod(&id).await.expect("a removed pod can be removed");
    cri.stop_pod(&id).await.expect("a removed pod can be stopped");
    node.assert_untouched(&before, "a pod that was removed").await;
}

#[tokio::test]
async fn pods_that_never_were_can_be_stopped_and_removed_but_not_looked_at() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let cri = node.cri();
    for id in ["0123456789abcdef", &"f".repeat(64), "no/such id"] {
        cri.stop_pod(id).await.unwrap();
        cri.remove_pod(id).await.unwrap();
        refused(cri.pod(id).await, Code::NotFound);
    }
    refused(cri.stop_pod("").await, Code::InvalidArgument);
}

#[tokio::test]
async fn a_pod_that_runs_is_stopped_by_its_removal() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let pod = cri.run_pod(&node.pod("web")).await.unwrap();
    cri.launch(&pod, &sleeps("c")).await.unwrap();
    cri.create(&pod, &sleeps("never-started")).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    assert!(cri.containers().await.unwrap().is_empty());
    node.assert_untouched(&before, "a pod that was removed while it ran").await;
}

#[tokio::test]
async fn a_pod_is_not_ready_in_the_very_call_after_its_stop_a_hundred_times() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let (fds, threads, config) = (node.descriptors(), node.threads(), node.pod("again"));
    for round in 0..100 {
        let id = cri.run_pod(&config).await.unwrap();
        assert!(cri.is_ready(&id).await.unwrap(), "round {round}");
        cri.stop_pod(&id).await.unwrap();
        assert!(!cri.is_ready(&id).await.unwrap(), "round {round}");
        cri.remove_pod(&id).await.unwrap();
    }
    node.assert_untouched(&before, "a hundred pods").await;
    // Threads that block for others are kept for some seconds.
    eventually("the daemon has no more descriptors and threads than before", async || {
        is_true(node.descriptors() <= fds + 2 && node.threads() <= threads + 4)
    })
    .await;
}

#[tokio::test]
async fn requests_for_the_same_pod_get_one_pod() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let config = node.pod("one");
    let ids = join_all((0..8).map(|_| cri.run_pod(&config))).await;
    let ids: Vec<_> = ids.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(cri.pods().await.unwrap().len(), 1);
    assert_eq!(cri.run_pod(&config).await.unwrap(), ids[0], "also when it is made");

    let mut other = config.clone();
    other.hostname = "other".into();
    let why = refused(cri.run_pod(&other).await, Code::AlreadyExists);
    assert!(why.contains("one") && why.contains(&ids[0]), "{why}");
    let mut next = other.clone();
    next.metadata.as_mut().unwrap().attempt = 1;
    let next = cri.run_pod(&next).await.expect("another attempt is another name");
    assert_ne!(next, ids[0]);

    cri.remove_pod(&ids[0]).await.unwrap();
    cri.run_pod(&other).await.expect("a removed pod's name is free");
}

#[tokio::test]
async fn a_client_that_goes_away_half_way_finds_its_pod_when_it_comes_again() {
    let Some(node) = Daemon::start(Options::default().by_cni()).await else { return };
    let plugin = Plugin::install(&node.place);
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let warm = plugin.count("ADD");
    let gate = node.folder("gate").join("open");
    plugin.when("ADD", &format!("while ! test -e {}; do sleep 0.02; done", gate.display()));
    let config = node.pod("slow");

    let hasty = node.hasty(Duration::from_millis(150));
    hasty.run_pod(&config).await.expect_err("it is given up after a while");
    eventually("the plugin is asked", async || is_true(plugin.count("ADD") > warm)).await;
    hasty.run_pod(&config).await.expect_err("it is not there yet");
    assert!(cri.pods().await.unwrap().is_empty(), "a pod that is half made is not shown");

    let (again, ()) = tokio::join!(cri.run_pod(&config), async {
        std::fs::write(&gate, "").unwrap();
    });
    let id = again.unwrap();
    assert!(cri.is_ready(&id).await.unwrap());
    assert_eq!(cri.pods().await.unwrap().len(), 1);
    assert_eq!(plugin.count("ADD"), warm + 1, "the work of the first call is the second one's");
    cri.remove_pod(&id).await.unwrap();
    node.assert_untouched(&before, "a pod whose client went away").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_and_nothing_is_made() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    type Spoil = fn(&mut v1::PodSandboxConfig);
    let wrong: [(&str, Spoil); 13] = [
        ("metadata", |pod| pod.metadata = None),
        ("metadata.name", |pod| pod.metadata.as_mut().unwrap().name.clear()),
        ("metadata.uid", |pod| pod.metadata.as_mut().unwrap().uid.clear()),
        ("metadata.namespace", |pod| pod.metadata.as_mut().unwrap().namespace = "a\nb".into()),
        ("hostname", |pod| pod.hostname = "a b".into()),
        ("hostname", |pod| pod.hostname = "x".repeat(65)),
        ("log_directory", |pod| pod.log_directory = "../logs".into()),
        ("host_port", |pod| {
            let mapping =
                v1::PortMapping { host_port: 70_000, container_port: 80, ..Default::default() };
            pod.port_mappings = vec![mapping];
        }),
        ("host_ip", |pod| {
            let mapping = v1::PortMapping {
                host_port: 7000,
                container_port: 80,
                host_ip: "localhost".into(),
                ..Default::default()
            };
            pod.port_mappings = vec![mapping];
        }),
        ("servers", |pod| {
            let servers = vec!["10.0.0.1\nnameserver 6.6.6.6".into()];
            pod.dns_config = Some(v1::DnsConfig { servers, ..Default::default() });
        }),
        ("sysctls", |pod| linux(pod).sysctls = pairs(&[("kernel.core_pattern", "|/bin/x")])),
        ("cgroup_parent", |pod| linux(pod).cgroup_parent = "/../escape".into()),
        ("run_as_group", |pod| {
            let context = linux(pod).security_context.get_or_insert_default();
            context.run_as_group = Some(v1::Int64Value { value: 5 });
        }),
    ];
    for (field, spoil) in wrong {
        let mut config = node.pod("wrong");
        spoil(&mut config);
        let why = refused(cri.run_pod(&config).await, Code::InvalidArgument);
        assert!(why.contains(field), "{field}: {why}");
    }
    let why = refused(cri.run_pod_by(&node.pod("wrong"), "gvisor").await, Code::InvalidArgument);
    assert!(why.contains("gvisor") && why.contains("podbay"), "{why}");
    let empty = v1::RunPodSandboxRequest::default();
    refused(cri.runtime().run_pod_sandbox(empty).await, Code::InvalidArgument);

    assert!(cri.pods().await.unwrap().is_empty());
    assert_eq!(before.difference(&node.snapshot()), Vec::<String>::new());
    cri.run_pod(&node.pod("wrong")).await.expect("the name was never taken");
}

#[tokio::test]
async fn a_pod_on_the_network_of_the_host_has_no_address_and_sees_its_interfaces() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let pod = cri.run_pod(&host_network(node.pod("host"))).await.unwrap();
    let status = cri.pod(&pod).await.unwrap();
    assert_eq!(status.network.unwrap_or_default().ip, "");
    let options = status.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(options.network(), v1::NamespaceMode::Node);
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let bridge = node.place.bridge();
    cri.shell(&id, &format!("test -e /sys/class/net/{bridge}")).await.unwrap();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(cri.shell(&id, "hostname").await.unwrap(), name.trim());
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    assert_eq!(cri.shell(&id, "cat /etc/hosts").await.unwrap(), hosts.trim_end());
    cri.remove_pod(&pod).await.unwrap();
    node.assert_untouched(&before, "a pod on the network of the host").await;
}

#[tokio::test]
async fn a_container_sees_the_names_of_its_pod() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let mut config = node.pod("names");
    config.hostname = "names-0".into();
    config.dns_config = Some(v1::DnsConfig {
        servers: vec!["10.10.10.10".into(), "10.10.10.11".into()],
        searches: (0..32).map(|n| format!("s{n}.example")).collect(),
        options: vec!["ndots:8".into()],
    });
    let pod = cri.run_pod(&config).await.unwrap();
    let address = cri.address(&pod).await.unwrap();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();

    assert_eq!(cri.shell(&id, "hostname; cat /etc/hostname").await.unwrap(), "names-0\nnames-0");
    let resolv = cri.shell(&id, "cat /etc/resolv.conf").await.unwrap();
    let servers: Vec<_> = resolv.lines().filter(|it| it.starts_with("nameserver ")).collect();
    assert_eq!(servers, ["nameserver 10.10.10.10", "nameserver 10.10.10.11"]);
    let search = resolv.lines().find(|line| line.starts_with("search ")).unwrap();
    assert_eq!(search.split(' ').count(), 33, "{search}");
    assert!(resolv.lines().any(|line| line == "options ndots:8"), "{resolv}");
    let hosts = cri.shell(&id, "cat /etc/hosts").await.unwrap();
    assert!(hosts.lines().any(|line| line == format!("{address}\tnames-0")), "{hosts}");
    assert!(hosts.lines().any(|line| line.starts_with("127.0.0.1\tlocalhost")), "{hosts}");
    let own = cri.shell(&id, "ip -4 -o addr show dev eth0").await.unwrap();
    assert!(own.contains(&format!("inet {address}/24")), "{own}");
}

#[tokio::test]
async fn a_pod_has_the_sysctls_and_the_shared_memory_that_it_is_to_have() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let mut config = node.pod("kernel");
    linux(&mut config).sysctls = pairs(&[
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "100"),
        ("net.ipv4.ip_unprivileged_port_start", "1000"),
    ]);
    let hosts = std::fs::read_to_string("/proc/sys/fs/mqueue/msg_max").unwrap();
    let pod = cri.run_pod(&config).await.unwrap();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let line = "cd /proc/sys; cat kernel/shm_rmid_forced fs/mqueue/msg_max \
                net/ipv4/ip_unprivileged_port_start";
    assert_eq!(cri.shell(&id, line).await.unwrap(), "1\n100\n1000");
    assert_eq!(std::fs::read_to_string("/proc/sys/fs/mqueue/msg_max").unwrap(), hosts);

    let shm = cri.shell(&id, "df -k /dev/shm | tail -n 1").await.unwrap();
    assert_eq!(shm.split_whitespace().nth(1), Some("65536"), "{shm}");
    let other = cri.launch(&pod, &sleeps("other")).await.unwrap();
    cri.shell(&id, "echo hello > /dev/shm/word").await.unwrap();
    assert_eq!(cri.shell(&other, "cat /dev/shm/word").await.unwrap(), "hello");
}

#[tokio::test]
async fn pods_are_found_by_the_beginning_of_their_ids_their_states_and_their_labels() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let cri = node.cri();
    let mut ids = Vec::new();
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        let mut config = host_network(node.pod(name));
        config.labels = pairs(&[("of", name), ("all", "yes")]);
        ids.push(cri.run_pod(&config).await.unwrap());
        assert_eq!(cri.pod(&ids[n][..13]).await.unwrap().id, ids[n]);
    }
    refused(cri.pod("").await, Code::InvalidArgument);
    cri.stop_pod(&ids[1][..13]).await.unwrap();
    assert!(!cri.is_ready(&ids[1]).await.unwrap());

    let found = async |filter: v1::PodSandboxFilter| {
        let pods = cri.pods_like(filter).await.unwrap();
        pods.into_iter().map(|pod| pod.id).collect::<Vec<_>>()
    };
    let by_label = |key: &str, value: &str| v1::PodSandboxFilter {
        label_selector: pairs(&[(key, value)]),
        ..Default::default()
    };
    assert_eq!(found(by_label("of", "a")).await, [ids[0].clone()]);
    assert_eq!(found(by_label("all", "yes")).await.len(), 2);
    assert_eq!(found(by_label("of", "c")).await.len(), 0);
    let state = v1::PodSandboxState::SandboxReady.into();
    let ready = v1::PodSandboxStateValue { state };
    let ready = v1::PodSandboxFilter { state: Some(ready), ..Default::default() };
    assert_eq!(found(ready).await, [ids[0].clone()]);
    let by_id = v1::PodSandboxFilter { id: ids[1][..20].to_owned(), ..Default::default() };
    assert_eq!(found(by_id).await, [ids[1].clone()]);
}

#[tokio::test]
async fn many_pods_can_be_made_at_once_each_with_an_address_of_its_own() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let configs: Vec<_> = (0..32).map(|n| node.pod(&format!("p{n}"))).collect();
    let ids = join_all(configs.iter().map(|config| cri.run_pod(config))).await;
    let ids: Vec<_> = ids.into_iter().map(Result::unwrap).collect();
    let mut addresses = Vec::new();
    for id in &ids {
        addresses.push(cri.address(id).await.unwrap());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 32);
    for removed in join_all(ids.iter().map(|id| cri.remove_pod(id))).await {
        removed.unwrap();
    }
    node.assert_untouched(&before, "thirty-two pods").await;
}

#[tokio::test]
async fn no_container_is_made_in_a_pod_that_is_not_ready() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("stopped")).await.unwrap();
    let id = cri.create(&pod, &shell("early", "true")).await.unwrap();
    cri.stop_pod(&pod).await.unwrap();
    refused(cri.create(&pod, &sleeps("late")).await, Code::FailedPrecondition);
    refused(cri.start(&id).await, Code::FailedPrecondition);
    refused(cri.create("0123456789abcdef", &sleeps("lost")).await, Code::NotFound);
    assert_eq!(cri.container(&id).await.unwrap().state(), v1::ContainerState::ContainerExited);
}

#[tokio::test]
async fn the_cgroup_that_the_kubelet_gives_is_used_and_left_to_it() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let parent = format!("/{}/kubepods/pod1", node.place.cgroup());
    let memory = format!("/sys/fs/cgroup/memory{parent}");
    if !std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        return e2e::skip("this host has no cgroup v1 for memory");
    }
    let mut config = node.pod("slices");
    linux(&mut config).cgroup_parent = parent.clone();
    std::fs::create_dir_all(&memory).unwrap();
    let pod = cri.run_pod(&config).await.unwrap();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    assert!(std::path::Path::new(&memory).join(&id).is_dir());
    let own = cri.pid(&id).await.unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{own}/cgroup")).unwrap();
    let below = |line: &str| line.ends_with(&format!(":{parent}/{id}"));
    assert!(groups.lines().any(below), "{groups}");
    cri.remove_pod(&pod).await.unwrap();
    let left = std::fs::read_dir(&memory).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn status_tells_of_each_handler_what_its_runtime_can_do() {
    let mut options = Options::default()
        .set("handlers.podbay.runtime", r#""""#)
        .set("handlers.pause.controller", r#""pause""#);
    if e2e::has("runc") {
        options = options.set("handlers.runc.runtime", r#""runc""#);
    }
    let Some(mut node) = Daemon::prepare(options).await else { return };
    // One that is older than the question, and one that can do all.
    for (name, answer) in [
        ("old", "exit 1"),
        ("new", r#"echo '{"mountOptions":["rro"],"linux":{"namespaces":["user"]}}'"#),
    ] {
        let script = node.folder("runtimes").join(name);
        std::fs::write(&script, format!("#!/bin/sh\n{answer}\n")).unwrap();
        e2e::run("chmod", &["755", &script.display().to_string()]);
        node.set(
            &format!("handlers.{name}.runtime"),
            &format!("{:?}", script.display().to_string()),
        );
    }
    node.start_again().await;
    let cri = node.cri();
    let status = cri.status().await.unwrap();
    let features = |name: &str| {
        let handler = status.runtime_handlers.iter().find(|handler| handler.name == name);
        let handler = handler.unwrap_or_else(|| panic!("{name:?} is not among them"));
        handler.features.expect("it has some, or it says that it has none")
    };
    let default = features("");
    assert_eq!(default, features("podbay"));
    assert!(default.recursive_read_only_mounts);
    assert!(features("pause").recursive_read_only_mounts);
    assert!(features("new").recursive_read_only_mounts);
    assert!(!features("old").recursive_read_only_mounts);
    if e2e::has("runc") {
        let said = e2e::run("runc", &["features"]).contains("\"rro\"");
        assert_eq!(features("runc").recursive_read_only_mounts, said);
    }
    let of_all = status.features.unwrap();
    assert!(of_all.supplemental_groups_policy);
    // Whether this kernel can is one question; with the node's network it is no other.
    assert_eq!(of_all.user_namespaces_host_network, default.user_namespaces);

    node.make_image().await;
    let pod = cri.run_pod_by(&node.pod("p"), "old").await.unwrap();
    let mut config = e2e::sleeps("c");
    config.mounts = vec![v1::Mount {
        readonly: true,
        recursive_read_only: true,
        ..e2e::mount(&node.folder("data"), "/data")
    }];
    let why = refused(cri.create(&pod, &config).await, Code::InvalidArgument);
    assert!(why.contains("RROUnsupported"), "{why}");
}

#[tokio::test]
async fn pods_run_although_nothing_can_be_run_from_where_the_root_is() {
    let Some(node) = Daemon::start(Options::default().where_nothing_runs()).await else { return };
    let (cri, before) = (node.cri(), node.warm_snapshot().await);
    for handler in ["podbay", "pause"] {
        let config = e2e::sharing(node.pod(handler));
        let pod = cri.run_pod_by(&config, handler).await.expect("its pause runs");
        let id = cri.launch(&pod, &sleeps("c")).await.expect("programs of images run");
        assert_eq!(cri.shell(&id, "hostname").await.unwrap(), handler);
        cri.remove_pod(&pod).await.unwrap();
    }
    node.assert_untouched(&before, "pods whose pause was brought near").await;
}
