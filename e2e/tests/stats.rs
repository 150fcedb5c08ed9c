//! What pods and containers use, the metrics of the node, lists in pieces, and new limits for a pod.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cri_proto::v1;
use e2e::{
    Cri, Daemon, Options, Sandboxer, container, eventually, host_network, is_true, refused, shell,
    sleeps,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tonic::Code;

const MIB: u64 = 1 << 20;

/// A daemon with one pod, by the handler. None, and a word about it, where that cannot be.
async fn pod_by(handler: &str) -> Option<(Daemon, Option<Sandboxer>, String)> {
    if handler == "runc" && !e2e::has("runc") {
        return None;
    }
    let mut node = Daemon::prepare(Options::default()).await?;
    let sandboxer = if handler == "sandboxer" {
        let place = node.place.clone();
        node.reconfigure(|options| options.with_sandboxer(&place));
        Some(Sandboxer::start(&node.place).await)
    } else {
        None
    };
    node.start_again().await;
    node.make_image().await;
    let pod = node.cri().run_pod_by(&node.pod("web"), handler).await.expect("a pod can be run");
    Some((node, sandboxer, pod))
}

e2e::by_handlers! {
    { by_the_built_in_runtime: "podbay", with_a_pause: "pause", with_a_sandboxer: "sandboxer", by_runc: "runc" }
    [a_pod_tells_what_it_uses_in_whole,
    every_metric_that_the_kernel_can_tell_is_told,
    metrics_are_true,
    a_pod_can_be_given_other_limits_wholly_or_not_at_all]
}

async fn pod_stats(cri: &Cri, id: &str) -> Result<v1::PodSandboxStats, tonic::Status> {
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
    Ok(cri.runtime().pod_sandbox_stats(request).await?.into_inner().stats.unwrap())
}

async fn listed_stats(cri: &Cri, filter: v1::PodSandboxStatsFilter) -> Vec<v1::PodSandboxStats> {
    let request = v1::ListPodSandboxStatsRequest { filter: Some(filter) };
    cri.runtime().list_pod_sandbox_stats(request).await.unwrap().into_inner().stats
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn number(value: Option<v1::UInt64Value>) -> u64 {
    value.expect("it is told").value
}

/// Fetches a page of a web server in the pod, which takes packets both ways.
async fn fetch(cri: &Cri, pod: &str) {
    let address = format!("{}:8080", cri.address(pod).await.unwrap());
    let connect = async || TcpStream::connect(&address).await.ok();
    let mut stream = eventually("the web server listens", connect).await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.is_empty());
}

async fn a_pod_tells_what_it_uses_in_whole(handler: &str) {
    let Some((node, _sandboxer, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let web = container("web", &["httpd", "-f", "-p", "8080", "-h", "/"]);
    let web = cri.launch(&pod, &web).await.unwrap();
    let busy = "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; i=0; while [ $i -lt 20000 ]; do \
                i=$((i+1)); done; echo done; sleep 1000 & sleep 1000 & wait";
    let busy = cri.launch(&pod, &shell("busy", busy)).await.unwrap();
    fetch(&cri, &pod).await;
    let log = node.log_of("web", "busy");
    eventually("it has been busy", async || {
        is_true(log.exists() && e2e::text(&log, "stdout").contains("done"))
    })
    .await;
    let mut not_run = sleeps("not-run");
    not_run.labels.insert("app".into(), "x".into());
    cri.create(&pod, &not_run).await.unwrap();

    let first = pod_stats(&cri, &pod).await.unwrap();
    let attributes = first.attributes.unwrap();
    assert_eq!((&attributes.id, attributes.metadata.unwrap().name.as_str()), (&pod, "web"));
    let linux = first.linux.unwrap();
    let (cpu, memory) = (linux.cpu.unwrap(), linux.memory.unwrap());
    assert!(cpu.timestamp > 0 && memory.timestamp > 0);
    assert_eq!(cpu.usage_nano_cores, None, "nothing is known of the time before");
    let ids: BTreeSet<_> =
        linux.containers.iter().map(|it| it.attributes.clone().unwrap().id).collect();
    assert_eq!(ids, BTreeSet::from([web, busy]), "those that run");
    let of_containers: u64 =
        linux.containers.iter().map(|it| number(it.cpu.unwrap().usage_core_nano_seconds)).sum();
    assert!(number(cpu.usage_core_nano_seconds) >= of_containers && of_containers > 0);
    assert!(number(memory.usage_bytes) >= 8 * MIB, "{memory:?}");
    assert!(number(memory.working_set_bytes) <= number(memory.usage_bytes));
    assert_eq!(memory.available_bytes, None, "there is no limit");
    let processes = number(linux.process.unwrap().process_count);
    assert!((4..=8).contains(&processes), "web, the shell, two sleeps, the created; {processes}");
    let network = linux.network.unwrap();
    let eth0 = network.default_interface.unwrap();
    assert_eq!((eth0.name.as_str(), network.interfaces.len()), ("eth0", 0));
    assert!(number(eth0.rx_bytes) > 100 && number(eth0.tx_bytes) > 100, "{eth0:?}");
    assert_eq!((number(eth0.rx_errors), number(eth0.tx_errors)), (0, 0));
    assert_eq!(cpu.psi.is_some(), is_v2());
    assert_eq!((memory.psi.is_some(), linux.io.is_some()), (is_v2(), is_v2()));

    let second = pod_stats(&cri, &pod).await.unwrap().linux.unwrap();
    assert!(second.cpu.unwrap().usage_nano_cores.is_some(), "a rate since the first time");
    assert!(second.containers.iter().all(|it| it.cpu.unwrap().usage_nano_cores.is_some()));
    assert!(second.containers.iter().all(|it| it.swap.unwrap().swap_usage_bytes.is_some()));
}

#[tokio::test]
async fn stats_are_told_of_those_pods_that_are_ready_and_asked_for() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let mut config = node.pod("a");
    config.labels.insert("app".into(), "a".into());
    let a = cri.run_pod(&config).await.unwrap();
    let b = cri.run_pod(&node.pod("b")).await.unwrap();
    let on_host = cri.run_pod(&host_network(node.pod("on-host"))).await.unwrap();
    let ids = async |filter: v1::PodSandboxStatsFilter| -> BTreeSet<String> {
        let all = listed_stats(&cri, filter).await;
        all.into_iter().map(|stats| stats.attributes.unwrap().id).collect()
    };
    let set = |ids: &[&String]| ids.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(Default::default()).await, set(&[&a, &b, &on_host]));
    let by_id = v1::PodSandboxStatsFilter { id: b.clone(), ..Default::default() };
    assert_eq!(ids(by_id).await, set(&[&b]));
    let label_selector = [("app".to_owned(), "a".to_owned())].into();
    let by_label = v1::PodSandboxStatsFilter { label_selector, ..Default::default() };
    assert_eq!(ids(by_label).await, set(&[&a]));

    let linux = pod_stats(&cri, &on_host).await.unwrap().linux.unwrap();
    assert_eq!(linux.network, None, "the host's traffic is not the pod's");
    assert_eq!(number(linux.process.unwrap().process_count), 0, "no process holds it");
    assert!(linux.containers.is_empty());

    cri.stop_pod(&a).await.unwrap();
    assert_eq!(ids(Default::default()).await, set(&[&b, &on_host]));
    let why = refused(pod_stats(&cri, &a).await, Code::Unavailable);
    assert!(why.contains("not ready"), "{why}");
    refused(pod_stats(&cri, "0123456789abcdef").await, Code::NotFound);
    refused(pod_stats(&cri, "").await, Code::InvalidArgument);
    assert_eq!(networks_of_threads(node.pid().unwrap()), 1, "no thread stayed in a pod's");
}

/// In how many network namespaces the threads of a process are.
fn networks_of_threads(pid: i32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let networks = threads.filter_map(|thread| fs::read_link(thread.path().join("ns/net")).ok());
    networks.collect::<BTreeSet<_>>().len()
}

/// Metrics of one thing: by name, the values with their labels.
type Metrics = BTreeMap<String, Vec<(Vec<String>, u64)>>;

fn by_name(metrics: Vec<v1::Metric>) -> Metrics {
    let mut all = Metrics::new();
    for metric in metrics {
        assert_eq!(metric.timestamp, 0, "it is as it is now");
        let value = (metric.label_values, number(metric.value));
        all.entry(metric.name).or_default().push(value);
    }
    all
}

/// What is told of the pod itself, and of its containers by their ids.
async fn metrics_of(cri: &Cri, pod: &str) -> Option<(Metrics, BTreeMap<String, Metrics>)> {
    let request = v1::ListPodSandboxMetricsRequest {};
    let all = cri.runtime().list_pod_sandbox_metrics(request).await.unwrap().into_inner();
    let of_pod = all.pod_metrics.into_iter().find(|metrics| metrics.pod_sandbox_id == pod)?;
    let containers = of_pod.container_metrics.into_iter();
    let containers = containers.map(|it| (it.container_id, by_name(it.metrics)));
    Some((by_name(of_pod.metrics), containers.collect()))
}

/// What critest wants, and what it does not miss where the kernel cannot tell it.
const NEED_NOT_BE: [&str; 16] = [
    "container_blkio_device_usage_total",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
    "container_fs_writes_bytes_total",
    "container_fs_writes_total",
    "container_hugetlb_max_usage_bytes",
    "container_hugetlb_usage_bytes",
    "container_pressure_cpu_stalled_seconds_total",
    "container_pressure_cpu_waiting_seconds_total",
    "container_pressure_io_stalled_seconds_total",
    "container_pressure_io_waiting_seconds_total",
    "container_pressure_memory_stalled_seconds_total",
    "container_pressure_memory_waiting_seconds_total",
    "container_spec_cpu_quota",
    "container_spec_memory_reservation_limit_bytes",
    "container_ulimits_soft",
];

async fn every_metric_that_the_kernel_can_tell_is_told(handler: &str) {
    let Some((node, _sandboxer, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    cri.shell(&id, "mkdir -p /data && echo hi > /data/x && sync").await.unwrap();
    let request = v1::ListMetricDescriptorsRequest {};
    let descriptors = cri.runtime().list_metric_descriptors(request).await.unwrap().into_inner();
    let (of_pod, containers) = metrics_of(&cri, &pod).await.unwrap();
    assert_eq!(descriptors.descriptors.len(), 56);
    for descriptor in descriptors.descriptors {
        let name = descriptor.name;
        let values = of_pod.get(&name).into_iter().chain(containers[&id].get(&name)).flatten();
        let values: Vec<_> = values.collect();
        let pressure = name.contains("_pressure_");
        let told = !values.is_empty();
        assert!(told || NEED_NOT_BE.contains(&name.as_str()), "{name} is missing");
        assert!(!pressure || told == is_v2(), "{name}");
        for (labels, _) in values {
            assert_eq!(labels.len(), descriptor.label_keys.len(), "{name}: {labels:?}");
        }
    }
    let names = ["container_ulimits_soft", "container_spec_memory_reservation_limit_bytes"];
    for name in names {
        assert!(containers[&id].contains_key(name), "{name}");
    }
}

/// On a host whose controllers are those of version 1, the cgroup2 that is mounted beside them is a
/// real one, with all that needs no controller.
#[tokio::test]
async fn pressure_and_huge_pages_are_told_on_cgroup_v2() {
    if !is_v2() && !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        return e2e::skip("this host has no cgroup2");
    }
    if !e2e::has("runc") {
        return;
    }
    let Some(mut node) = Daemon::prepare(Options::default()).await else { return };
    let line = "umount -R /sys/fs/cgroup && mount -t cgroup2 podbay-test /sys/fs/cgroup && \
                exec \"$@\"";
    node.start_within(&["unshare", "--mount", "sh", "-c", line, "sh"]).await;
    node.make_image().await;
    let cri = node.cri();
    let pod = cri.run_pod_by(&node.pod("web"), "runc").await.unwrap();
    // Three want what two have.
    let busy = "for i in 1 2 3; do while :; do :; done & done; wait";
    let id = cri.launch(&pod, &shell("busy", busy)).await.unwrap();
    let stats = eventually("it has been busy, and waited", async || {
        let stats = pod_stats(&cri, &pod).await.unwrap().linux.unwrap();
        let psi = stats.containers[0].cpu.unwrap().psi.expect("pressure is told");
        is_true(psi.some.unwrap().total > 0).map(|()| stats)
    })
    .await;
    assert!(stats.cpu.unwrap().psi.unwrap().some.unwrap().total > 0, "of the pod too");
    assert!(stats.memory.unwrap().psi.is_some() && stats.io.unwrap().psi.is_some());
    let container = &stats.containers[0];
    assert!(container.memory.unwrap().psi.is_some() && container.io.unwrap().psi.is_some());
    assert!(number(container.cpu.unwrap().usage_core_nano_seconds) > 0);

    let root = if is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    let controllers = fs::read_to_string(Path::new(root).join("cgroup.controllers")).unwrap();
    let (of_pod, containers) = metrics_of(&cri, &pod).await.unwrap();
    for of in [&of_pod, &containers[&id]] {
        let told = of.keys().filter(|name| name.contains("_pressure_"));
        assert_eq!(told.count(), 6, "some and all, of three things");
        let pages = controllers.split_whitespace().any(|one| one == "hugetlb");
        assert_eq!(of.contains_key("container_hugetlb_usage_bytes"), pages);
        assert!(!of.contains_key("container_hugetlb_max_usage_bytes"), "which v2 does not tell");
    }
    cri.remove_all().await.unwrap();
}

async fn metrics_are_true(handler: &str) {
    let Some((node, _sandboxer, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    // The one that takes too much is killed, and the first process goes on.
    let line = "dd if=/dev/zero of=/big bs=1M count=4; exec 5</etc 6</etc 7</etc; \
                tail /dev/zero; nc -l -p 9999 & sleep 1000 & echo done; wait";
    let mut config = shell("c", line);
    let resources = v1::LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 40_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 24 << 20,
        memory_swap_limit_in_bytes: 24 << 20,
        ..Default::default()
    };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = cri.launch(&pod, &config).await.unwrap();
    let log = node.log_of("web", "c");
    eventually("it has done all", async || {
        is_true(log.exists() && e2e::text(&log, "stdout").contains("done"))
    })
    .await;
    let (of_pod, containers) = eventually("all its processes are there", async || {
        let all = metrics_of(&cri, &pod).await?;
        (all.1.get(&id)?["container_sockets"][0].1 > 0).then_some(all)
    })
    .await;
    let own = &containers[&id];
    let value = |name: &str| own[name][0].1;
    let labels = &own["container_memory_usage_bytes"][0].0;
    assert_eq!((labels[0].as_str(), &labels[3]), ("c", &id));
    assert_eq!((labels[2].as_str(), labels[4].as_str()), (e2e::IMAGE, "e2e"));
    assert_eq!(labels[5], "web");
    assert!(labels[1].ends_with(&id), "its cgroup: {labels:?}");

    assert_eq!(value("container_processes"), 3, "the shell, nc, sleep");
    assert_eq!(value("container_threads"), 3);
    assert_eq!(value("container_sockets"), 1);
    let descriptors = value("container_file_descriptors");
    assert!(
        (18..=24).contains(&descriptors),
        "three of /etc in each, and the usual: {descriptors}"
    );
    assert_eq!(own["container_ulimits_soft"][0].0.last().unwrap(), "max_open_files");
    assert_eq!(value("container_ulimits_soft"), open_files_limit(cri.pid(&id).await.unwrap()));
    assert!(value("container_oom_events_total") >= 1);
    assert!(value("container_memory_max_usage_bytes") >= 16 * MIB);
    assert!(value("container_memory_max_usage_bytes") <= 24 * MIB);
    let failures = &own["container_memory_failures_total"];
    assert!(failures.iter().any(|(labels, faults)| labels[6] == "pgfault" && *faults > 1000));
    assert!(value("container_fs_usage_bytes") >= 4 * MIB);
    assert!(value("container_fs_usage_bytes") <= 5 * MIB);
    assert!(value("container_fs_limit_bytes") > 5 * MIB);
    assert_eq!(value("container_spec_cpu_period"), 50_000);
    assert_eq!(value("container_spec_cpu_quota"), 40_000);
    assert_eq!(value("container_spec_cpu_shares"), 512);
    assert_eq!(value("container_spec_memory_limit_bytes"), 24 * MIB);
    let status = cri.container(&id).await.unwrap();
    let started = u64::try_from(status.started_at).unwrap() / 1_000_000_000;
    assert_eq!(value("container_start_time_seconds"), started);
    assert!(value("container_last_seen") >= started);

    let received = &of_pod["container_network_receive_bytes_total"];
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].0[0].as_str(), received[0].0[6].as_str()), ("POD", "eth0"));
    let usage = &of_pod["container_memory_usage_bytes"][0];
    assert_eq!(usage.0[0], "", "the pod in whole is no container");
    assert!(usage.1 >= value("container_memory_usage_bytes"));

    cri.stop(&id, 0).await.unwrap();
    let (_, containers) = metrics_of(&cri, &pod).await.unwrap();
    assert!(containers.is_empty(), "nothing is told of what has ended");
    cri.stop_pod(&pod).await.unwrap();
    assert!(metrics_of(&cri, &pod).await.is_none());
}

fn open_files_limit(pid: i32) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_stream_tells_what_the_list_does() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    for name in ["a", "b", "c"] {
        let mut config = node.pod(name);
        config.labels.insert("app".into(), name.into());
        let pod = cri.run_pod(&config).await.unwrap();
        let mut config = sleeps("c");
        config.labels.insert("app".into(), name.into());
        cri.launch(&pod, &config).await.unwrap();
    }
    let mut runtime = cri.runtime();
    let app = [("app".to_owned(), "b".to_owned())];

    let listed = cri.pods().await.unwrap();
    let request = v1::StreamPodSandboxesRequest::default();
    let stream = runtime.stream_pod_sandboxes(request).await.unwrap().into_inner();
    let pods: Vec<_> = stream.map(|piece| piece.unwrap().pod_sandboxes).collect().await;
    assert_eq!(pods.concat(), listed);
    let filter = v1::PodSandboxFilter { label_selector: app.clone().into(), ..Default::default() };
    let request = v1::StreamPodSandboxesRequest { filter: Some(filter.clone()) };
    let stream = runtime.stream_pod_sandboxes(request).await.unwrap().into_inner();
    let pods: Vec<_> = stream.map(|piece| piece.unwrap().pod_sandboxes).collect().await;
    assert_eq!(pods.concat(), cri.pods_like(filter).await.unwrap());

    let listed = cri.containers().await.unwrap();
    let request = v1::StreamContainersRequest::default();
    let stream = runtime.stream_containers(request).await.unwrap().into_inner();
    let containers: Vec<_> = stream.map(|piece| piece.unwrap().containers).collect().await;
    assert_eq!(containers.concat(), listed);
    let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerExited.into() };
    let filter = v1::ContainerFilter { state: Some(state), ..Default::default() };
    let request = v1::StreamContainersRequest { filter: Some(filter) };
    let stream = runtime.stream_containers(request).await.unwrap().into_inner();
    assert_eq!(stream.collect::<Vec<_>>().await.len(), 0, "no piece for nothing");

    let filter =
        v1::ContainerStatsFilter { label_selector: app.clone().into(), ..Default::default() };
    let request = v1::StreamContainerStatsRequest { filter: Some(filter) };
    let stream = runtime.stream_container_stats(request).await.unwrap().into_inner();
    let stats: Vec<_> = stream.map(|piece| piece.unwrap().container_stats).collect().await;
    let of = |container: &v1::Container| container.labels["app"] == "b";
    let b = &listed.iter().find(|it| of(it)).unwrap().id;
    let ids: Vec<_> = stats.concat().into_iter().map(|it| it.attributes.unwrap().id).collect();
    assert_eq!(&ids, std::slice::from_ref(b));

    let filter = v1::PodSandboxStatsFilter { label_selector: app.into(), ..Default::default() };
    let request = v1::StreamPodSandboxStatsRequest { filter: Some(filter) };
    let stream = runtime.stream_pod_sandbox_stats(request).await.unwrap().into_inner();
    let stats: Vec<_> = stream.map(|piece| piece.unwrap().pod_sandbox_stats).collect().await;
    let stats = stats.concat();
    assert_eq!(stats.len(), 1);
    assert_eq!(stats[0].linux.as_ref().unwrap().containers.len(), 1);

    let request = v1::StreamPodSandboxMetricsRequest::default();
    let stream = runtime.stream_pod_sandbox_metrics(request).await.unwrap().into_inner();
    let metrics: Vec<_> = stream.map(|piece| piece.unwrap().pod_sandbox_metrics).collect().await;
    let ids: Vec<_> = metrics.concat().into_iter().map(|it| it.pod_sandbox_id).collect();
    let listed: Vec<_> = cri.pods().await.unwrap().into_iter().map(|pod| pod.id).collect();
    assert_eq!(ids, listed);

    let request = v1::StreamImagesRequest::default();
    let stream = cri.images().stream_images(request).await.unwrap().into_inner();
    let images: Vec<_> = stream.map(|piece| piece.unwrap().images).collect().await;
    assert_eq!(images.concat(), cri.all_images().await.unwrap());
}

async fn resize(
    cri: &Cri,
    pod: &str,
    overhead: Option<v1::LinuxContainerResources>,
    resources: Option<v1::LinuxContainerResources>,
) -> Result<(), tonic::Status> {
    let pod_sandbox_id = pod.to_owned();
    let request = v1::UpdatePodSandboxResourcesRequest { pod_sandbox_id, overhead, resources };
    cri.runtime().update_pod_sandbox_resources(request).await.map(drop)
}

/// Its limits of memory and of processor time, as the kernel has them.
fn limits(group: &Path) -> [String; 2] {
    let read = |controller: &str, file: &str| {
        let dir = if is_v2() { PathBuf::new() } else { controller.into() };
        let path = Path::new("/sys/fs/cgroup").join(dir).join(group).join(file);
        fs::read_to_string(path).unwrap().trim().to_owned()
    };
    match is_v2() {
        true => [read("", "memory.max"), read("", "cpu.weight")],
        false => [read("memory", "memory.limit_in_bytes"), read("cpu", "cpu.shares")],
    }
}

async fn a_pod_can_be_given_other_limits_wholly_or_not_at_all(handler: &str) {
    let Some((mut node, _sandboxer, _)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let memory = |mib: i64| v1::LinuxContainerResources {
        memory_limit_in_bytes: mib << 20,
        ..Default::default()
    };
    let mut config = node.pod("limited");
    let linux = config.linux.as_mut().unwrap();
    (linux.overhead, linux.resources) = (Some(memory(8)), Some(memory(64)));
    let pod = cri.run_pod_by(&config, handler).await.unwrap();
    let group = Path::new(node.place.cgroup().trim_start_matches('/')).join(&pod);
    let [limit, weight] = limits(&group);
    assert_eq!(limit, (72 * MIB).to_string(), "its sandbox's and its containers' together");

    resize(&cri, &pod, None, Some(memory(96))).await.unwrap();
    assert_eq!(limits(&group), [(104 * MIB).to_string(), weight.clone()]);
    resize(&cri, &pod, Some(memory(16)), None).await.unwrap();
    resize(&cri, &pod, None, None).await.unwrap();
    let now = limits(&group);
    assert_eq!(now, [(112 * MIB).to_string(), weight]);
    let again = cri.run_pod_by(&config, handler).await.unwrap();
    assert_eq!(again, pod, "it is still the pod that was asked for");

    let with = |change: fn(&mut v1::LinuxContainerResources)| {
        let mut limits = memory(32);
        change(&mut limits);
        Some(limits)
    };
    let bad = [
        (with(|it| it.cpu_period = -1), "resources.cpu_period"),
        (with(|it| it.memory_swap_limit_in_bytes = 1), "resources.memory_swap_limit_in_bytes"),
        (with(|it| it.cpuset_cpus = "0;1".into()), "resources.cpuset_cpus"),
    ];
    for (bad, field) in bad {
        let why = refused(resize(&cri, &pod, None, bad).await, Code::InvalidArgument);
        assert!(why.starts_with(&format!("{field}: ")), "{why}");
        let why = resize(&cri, &pod, with(|it| it.cpu_shares = -1), None).await;
        assert!(refused(why, Code::InvalidArgument).starts_with("overhead.cpu_shares: "));
        assert_eq!(limits(&group), now);
    }
    // The kernel takes the one, and then not the other.
    let half = with(|it| (it.cpu_shares, it.cpuset_cpus) = (17, "4000".into()));
    resize(&cri, &pod, None, half).await.expect_err("there is no such processor");
    assert_eq!(limits(&group), now, "it was put back");

    node.kill();
    // As if it had been killed before it set what it had recorded.
    if !is_v2() {
        let file = Path::new("/sys/fs/cgroup/memory").join(&group).join("memory.limit_in_bytes");
        fs::write(file, (200 * MIB).to_string()).unwrap();
    }
    node.start_again().await;
    let cri = node.cri();
    eventually("it has the limits that are recorded", async || is_true(limits(&group) == now))
        .await;
    let info = cri.pod_verbose(&pod, true).await.unwrap().info.remove("info").unwrap();
    let record: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(record["resources"]["memory"], 96 << 20, "it was recorded");
    assert_eq!(record["overhead"]["memory"], 16 << 20);
    assert_eq!(record["resources"]["cpu_shares"], 0);

    cri.stop_pod(&pod).await.unwrap();
    refused(resize(&cri, &pod, None, Some(memory(1))).await, Code::FailedPrecondition);
    refused(resize(&cri, "0123456789abcdef", None, None).await, Code::NotFound);
}

#[tokio::test]
async fn limits_of_a_cgroup_that_is_the_kubelets_are_recorded_and_left_to_it() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let first = cri.run_pod(&node.pod("first")).await.unwrap();
    let parent = format!("/{}/{first}", node.place.cgroup().trim_start_matches('/'));
    let mut config = node.pod("web");
    config.linux.as_mut().unwrap().cgroup_parent = parent.clone();
    let pod = cri.run_pod(&config).await.unwrap();
    let group = Path::new(parent.trim_start_matches('/'));
    let before = limits(group);
    let new = v1::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_shares: 99,
        ..Default::default()
    };
    resize(&cri, &pod, None, Some(new)).await.unwrap();
    assert_eq!(limits(group), before);
    let info = cri.pod_verbose(&pod, true).await.unwrap().info.remove("info").unwrap();
    let record: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(record["resources"]["memory"], 64 << 20);
    cri.remove_pod(&pod).await.unwrap();
}
