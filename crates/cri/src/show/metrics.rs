//! Metrics as CRI shows them: those that cAdvisor would have for a pod and its containers. What cannot
//! be told on this host is left out. A value is a whole number, so that seconds are cut off.

mod known;

use std::collections::BTreeMap;

use cri_proto::v1;
use pods::{
    ContainerMetrics, Life, PodMetrics, PodRecord,
    plan::{Resources, shown_image},
};
use sys::{
    cgroup::{Io, Pressure, Stats},
    netdev::Interface,
};

pub(crate) use known::descriptors;
use known::{
    BLKIO_USAGE, CPU_PERIODS, CPU_SYSTEM, CPU_THROTTLED, CPU_THROTTLED_PERIODS, CPU_USAGE,
    CPU_USER, FILE_DESCRIPTORS, FS_INODES, FS_INODES_FREE, FS_LIMIT, FS_READ_BYTES, FS_READS,
    FS_USAGE, FS_WRITES, FS_WRITTEN_BYTES, HUGETLB_MAX_USAGE, HUGETLB_USAGE, Known, LAST_SEEN,
    MEMORY_CACHE, MEMORY_FAILCNT, MEMORY_FAILURES, MEMORY_KERNEL, MEMORY_MAPPED_FILE,
    MEMORY_MAX_USAGE, MEMORY_RSS, MEMORY_SWAP, MEMORY_USAGE, MEMORY_WORKING_SET, OOM_EVENTS,
    PRESSURE_CPU_STALLED, PRESSURE_CPU_WAITING, PRESSURE_IO_STALLED, PRESSURE_IO_WAITING,
    PRESSURE_MEMORY_STALLED, PRESSURE_MEMORY_WAITING, PROCESSES, RECEIVED_BYTES, RECEIVED_DROPPED,
    RECEIVED_ERRORS, RECEIVED_PACKETS, SENT_BYTES, SENT_DROPPED, SENT_ERRORS, SENT_PACKETS,
    SOCKETS, SPEC_CPU_PERIOD, SPEC_CPU_QUOTA, SPEC_CPU_SHARES, SPEC_MEMORY_LIMIT,
    SPEC_MEMORY_RESERVATION, SPEC_MEMORY_SWAP_LIMIT, START_TIME, THREADS, THREADS_MAX,
    ULIMITS_SOFT, WHO,
};

/// What the kernel gives to a cgroup that asks for nothing.
const USUAL_SHARES: u64 = 1024;
const USUAL_PERIOD: u64 = 100_000;

const SECOND: u64 = 1_000_000_000;

pub(crate) fn pod_metrics(metrics: &PodMetrics) -> v1::PodSandboxMetrics {
    let pod = &metrics.pod.pod;
    let mut whole = Rows::of_pod(pod, "");
    whole.usage(&metrics.pod.usage, &metrics.devices);
    whole.put(&PROCESSES, [], metrics.pod.processes);
    // cAdvisor tells traffic of the container that holds the pod, which it calls so.
    let mut network = Rows::of_pod(pod, "POD");
    for interface in metrics.pod.traffic.iter().flatten() {
        network.traffic(interface);
    }
    whole.metrics.append(&mut network.metrics);
    v1::PodSandboxMetrics {
        pod_sandbox_id: pod.id.to_string(),
        metrics: whole.metrics,
        container_metrics: metrics
            .containers
            .iter()
            .map(|container| container_metrics(container, pod, &metrics.devices))
            .collect(),
    }
}

fn container_metrics(
    metrics: &ContainerMetrics,
    pod: &PodRecord,
    devices: &Devices,
) -> v1::ContainerMetrics {
    let stats = &metrics.stats;
    let mut rows = Rows::of_container(metrics, pod);
    rows.usage(&stats.usage, devices);
    rows.put(&LAST_SEEN, [], seconds(stats.at));
    if let Life::Running { started, .. } = stats.container.life {
        rows.put(&START_TIME, [], seconds(started));
    }
    rows.spec(&stats.container.resources);
    rows.processes(metrics);
    rows.disk(metrics);
    v1::ContainerMetrics { container_id: stats.container.id.to_string(), metrics: rows.metrics }
}

type Devices = BTreeMap<(u32, u32), String>;

fn seconds(at: i64) -> u64 {
    u64::try_from(at).unwrap_or_default() / SECOND
}

/// Metrics of one thing.
struct Rows {
    /// The values of [`WHO`].
    who: [String; WHO.len()],
    metrics: Vec<v1::Metric>,
}

impl Rows {
    fn of_pod(pod: &PodRecord, container: &str) -> Self {
        let (id, name) = (pod.cgroup.display().to_string(), pod.name());
        // The sandbox itself is called by its id, the pod in whole by no name.
        let own = if container.is_empty() { String::new() } else { pod.id.to_string() };
        let (namespace, pod) = (name.namespace.clone(), name.name.clone());
        let who = [container.to_owned(), id, String::new(), own, namespace, pod];
        Self { who, metrics: Vec::new() }
    }

    fn of_container(metrics: &ContainerMetrics, pod: &PodRecord) -> Self {
        let (container, name) = (&metrics.stats.container, pod.name());
        let who = [
            container.plan.name.clone(),
            container.cgroup.display().to_string(),
            shown_image(&container.plan).to_owned(),
            container.id.to_string(),
            name.namespace.clone(),
            name.name.clone(),
        ];
        Self { who, metrics: Vec::new() }
    }

    fn put<const N: usize>(&mut self, known: &Known<N>, labels: [&str; N], value: u64) {
        let labels = labels.into_iter().map(str::to_owned);
        self.metrics.push(v1::Metric {
            name: known.name.to_owned(),
            // Told as it is now: nothing is kept from before.
            timestamp: 0,
            metric_type: known.kind.into(),
            label_values: self.who.iter().cloned().chain(labels).collect(),
            value: Some(v1::UInt64Value { value }),
        });
    }

    /// What a cgroup tells.
    fn usage(&mut self, usage: &Stats, devices: &Devices) {
        self.cpu(usage);
        self.memory(usage);
        self.put(&THREADS, [], usage.pids);
        self.put(&THREADS_MAX, [], limit(usage.pids_limit));
        for pages in &usage.hugepages {
            self.put(&HUGETLB_USAGE, [&pages.size], pages.usage);
            if let Some(max) = pages.max_usage {
                self.put(&HUGETLB_MAX_USAGE, [&pages.size], max);
            }
        }
        for io in &usage.io {
            self.io(io, devices);
        }
        let pressures = [
            (usage.cpu_pressure, PRESSURE_CPU_WAITING, PRESSURE_CPU_STALLED),
            (usage.memory_pressure, PRESSURE_MEMORY_WAITING, PRESSURE_MEMORY_STALLED),
            (usage.io_pressure, PRESSURE_IO_WAITING, PRESSURE_IO_STALLED),
        ];
        for (pressure, waiting, stalled) in pressures {
            self.pressure(pressure, &waiting, &stalled);
        }
    }

    fn cpu(&mut self, usage: &Stats) {
        self.put(&CPU_USAGE, ["total"], usage.cpu_usage_ns / SECOND);
        self.put(&CPU_USER, [], usage.cpu_user_ns / SECOND);
        self.put(&CPU_SYSTEM, [], usage.cpu_system_ns / SECOND);
        self.put(&CPU_PERIODS, [], usage.cpu_periods);
        self.put(&CPU_THROTTLED_PERIODS, [], usage.cpu_throttled_periods);
        self.put(&CPU_THROTTLED, [], usage.cpu_throttled_ns / SECOND);
    }

    fn memory(&mut self, usage: &Stats) {
        self.put(&MEMORY_USAGE, [], usage.memory_usage);
        self.put(&MEMORY_WORKING_SET, [], usage.working_set);
        // Kernels before 5.19 do not tell it on cgroup v2, and no process uses nothing.
        if usage.memory_max_usage > 0 {
            self.put(&MEMORY_MAX_USAGE, [], usage.memory_max_usage);
        }
        self.put(&MEMORY_RSS, [], usage.rss);
        self.put(&MEMORY_CACHE, [], usage.cache);
        self.put(&MEMORY_MAPPED_FILE, [], usage.mapped_file);
        self.put(&MEMORY_KERNEL, [], usage.kernel_memory);
        self.put(&MEMORY_SWAP, [], usage.swap_usage);
        self.put(&MEMORY_FAILCNT, [], usage.memory_failures);
        // Of it and of the cgroups below, which are the container's too.
        for scope in ["container", "hierarchy"] {
            self.put(&MEMORY_FAILURES, ["pgfault", scope], usage.page_faults);
            self.put(&MEMORY_FAILURES, ["pgmajfault", scope], usage.major_page_faults);
        }
        self.put(&OOM_EVENTS, [], usage.oom_kills);
    }

    fn io(&mut self, io: &Io, devices: &Devices) {
        let device = devices.get(&(io.major, io.minor)).map_or("", String::as_str);
        let (major, minor) = (io.major.to_string(), io.minor.to_string());
        self.put(&BLKIO_USAGE, [device, &major, &minor, "Read"], io.read_bytes);
        self.put(&BLKIO_USAGE, [device, &major, &minor, "Write"], io.written_bytes);
        self.put(&FS_READ_BYTES, [device], io.read_bytes);
        self.put(&FS_READS, [device], io.reads);
        self.put(&FS_WRITTEN_BYTES, [device], io.written_bytes);
        self.put(&FS_WRITES, [device], io.writes);
    }

    fn pressure(&mut self, pressure: Option<Pressure>, waiting: &Known<0>, stalled: &Known<0>) {
        let Some(pressure) = pressure else { return };
        self.put(waiting, [], pressure.some.total_us / 1_000_000);
        self.put(stalled, [], pressure.full.total_us / 1_000_000);
    }

    fn traffic(&mut self, interface: &Interface) {
        let Interface { name, received, sent } = interface;
        self.put(&RECEIVED_BYTES, [name], received.bytes);
        self.put(&RECEIVED_PACKETS, [name], received.packets);
        self.put(&RECEIVED_ERRORS, [name], received.errors);
        self.put(&RECEIVED_DROPPED, [name], received.dropped);
        self.put(&SENT_BYTES, [name], sent.bytes);
        self.put(&SENT_PACKETS, [name], sent.packets);
        self.put(&SENT_ERRORS, [name], sent.errors);
        self.put(&SENT_DROPPED, [name], sent.dropped);
    }

    /// The limits that hold now.
    fn spec(&mut self, limits: &Resources) {
        let or = |number: i64, usual| positive(number).unwrap_or(usual);
        self.put(&SPEC_CPU_PERIOD, [], or(limits.cpu_period, USUAL_PERIOD));
        self.put(&SPEC_CPU_SHARES, [], or(limits.cpu_shares, USUAL_SHARES));
        if let Some(quota) = positive(limits.cpu_quota) {
            self.put(&SPEC_CPU_QUOTA, [], quota);
        }
        self.put(&SPEC_MEMORY_LIMIT, [], or(limits.memory, 0));
        self.put(&SPEC_MEMORY_SWAP_LIMIT, [], or(limits.memory_swap, 0));
        let reserved = limits.unified.get("memory.min").and_then(|text| text.parse().ok());
        self.put(&SPEC_MEMORY_RESERVATION, [], reserved.unwrap_or(0));
    }

    fn processes(&mut self, metrics: &ContainerMetrics) {
        let Some(processes) = &metrics.processes else { return };
        self.put(&PROCESSES, [], processes.count);
        self.put(&FILE_DESCRIPTORS, [], processes.descriptors);
        self.put(&SOCKETS, [], processes.sockets);
        if let Some(limit) = processes.open_files_limit {
            self.put(&ULIMITS_SOFT, ["max_open_files"], limit);
        }
    }

    fn disk(&mut self, metrics: &ContainerMetrics) {
        let Some(disk) = &metrics.disk else { return };
        self.put(&FS_USAGE, [&disk.device], metrics.stats.layer.bytes);
        self.put(&FS_LIMIT, [&disk.device], disk.bytes);
        self.put(&FS_INODES, [&disk.device], disk.inodes);
        self.put(&FS_INODES_FREE, [&disk.device], disk.inodes_free);
    }
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// cAdvisor says "no limit" by zero.
fn limit(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sys::{
        cgroup::{HugepageUse, Stall},
        netdev::Counters,
    };

    use super::*;

    fn rows() -> Rows {
        Rows { who: Default::default(), metrics: Vec::new() }
    }

    fn full() -> Stats {
        let some = Stall { total_us: 2_500_000, ..Stall::default() };
        let pressure = Some(Pressure { some, full: Stall::default() });
        Stats {
            cpu_usage_ns: 3 * SECOND + 1,
            memory_max_usage: 9,
            pids_limit: u64::MAX,
            io: vec![Io { major: 8, read_bytes: 5, ..Io::default() }],
            hugepages: vec![HugepageUse { size: "2MB".into(), usage: 1, max_usage: Some(2) }],
            cpu_pressure: pressure,
            memory_pressure: pressure,
            io_pressure: pressure,
            ..Stats::default()
        }
    }

    fn value(rows: &Rows, name: &str, last: &str) -> Option<u64> {
        let found = rows.metrics.iter().find(|metric| {
            metric.name == name && metric.label_values.last().is_some_and(|value| value == last)
        });
        found.and_then(|metric| metric.value).map(|value| value.value)
    }

    #[test]
    fn every_metric_has_a_name_of_its_own_a_meaning_and_labels() {
        let all = descriptors();
        let names: BTreeSet<_> = all.iter().map(|descriptor| &descriptor.name).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(all.len(), 56);
        for descriptor in &all {
            assert!(descriptor.help.ends_with('.'), "{}", descriptor.name);
            assert_eq!(descriptor.label_keys[..6], WHO, "{}", descriptor.name);
        }
    }

    #[test]
    fn values_have_the_labels_that_their_descriptors_name() {
        let mut rows = rows();
        rows.usage(&full(), &Devices::default());
        let (name, counters) = ("eth0".to_owned(), Counters::default());
        rows.traffic(&Interface { name, received: counters, sent: counters });
        rows.spec(&Resources { cpu_quota: 1, ..Resources::default() });
        let keys: BTreeMap<_, _> =
            descriptors().into_iter().map(|it| (it.name, it.label_keys.len())).collect();
        for metric in &rows.metrics {
            assert_eq!(keys[&metric.name], metric.label_values.len(), "{}", metric.name);
        }
    }

    #[test]
    fn seconds_are_whole_and_no_limit_is_zero() {
        let mut rows = rows();
        rows.usage(&full(), &Devices::default());
        assert_eq!(value(&rows, "container_cpu_usage_seconds_total", "total"), Some(3));
        assert_eq!(value(&rows, "container_pressure_io_waiting_seconds_total", ""), Some(2));
        assert_eq!(value(&rows, "container_threads_max", ""), Some(0));
        assert_eq!(value(&rows, "container_blkio_device_usage_total", "Read"), Some(5));
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_left_out() {
        let mut rows = rows();
        rows.usage(&Stats::default(), &Devices::default());
        for metric in &rows.metrics {
            assert!(!metric.name.contains("pressure"), "{}", metric.name);
            assert!(!metric.name.contains("max_usage"), "{}", metric.name);
        }
    }

    #[test]
    fn a_limit_that_was_not_asked_for_is_the_usual_one() {
        let mut rows = rows();
        rows.spec(&Resources { memory: -1, memory_swap: 7, ..Resources::default() });
        assert_eq!(value(&rows, "container_spec_cpu_period", ""), Some(100_000));
        assert_eq!(value(&rows, "container_spec_cpu_shares", ""), Some(1024));
        assert_eq!(value(&rows, "container_spec_cpu_quota", ""), None);
        assert_eq!(value(&rows, "container_spec_memory_limit_bytes", ""), Some(0));
        assert_eq!(value(&rows, "container_spec_memory_swap_limit_bytes", ""), Some(7));
    }
}
