//! The cgroup of a container: where it is, and OCI's limits and containerd's metrics in the terms
//! of `sys::cgroup`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use oci_spec::runtime::LinuxResources;
use protobuf::{Message, MessageField, well_known_types::any::Any};
use shim_api::{METRICS_V1_URL, METRICS_V2_URL, cgroups_v1 as v1, cgroups_v2 as v2};
use sys::cgroup::{Cgroup, Io, Layout, Limits, Pressure, Stall, Stats, moves::path_in};

use crate::error::Error;

/// Where a hybrid host has its cgroup2, as systemd makes it.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// The cgroup that a process was put in. `None` if that is ours too, or one above ours: its other
/// processes are not the container's.
pub fn of(layout: &Layout, pid: u32) -> Option<Cgroup> {
    let path = |who: &str| {
        let text = fs::read_to_string(format!("/proc/{who}/cgroup")).ok()?;
        path(&text, layout.is_v2())
    };
    let its = path(&pid.to_string())?;
    let ours = path("self")?;
    if ours.starts_with(&its) { None } else { Cgroup::new(layout, &its).ok() }
}

/// The path in `/proc/<pid>/cgroup`. On v1 there is one for each hierarchy; runtimes make them the
/// same, and memory's is where the kernel counts its kills.
fn path(text: &str, is_v2: bool) -> Option<PathBuf> {
    let of = |controller| path_in(text, controller);
    let path = if is_v2 { of("") } else { of("memory").or_else(|| of("pids")) };
    path.map(PathBuf::from)
}

/// Takes the cgroup away that a runc-like runtime has made on a hybrid host beside those of v1, and
/// leaves behind (runc 1.1). It limits nothing, so that its staying would hurt nobody.
pub fn remove_unified(layout: &Layout, path: &Path) {
    if let (false, Ok(path)) = (layout.is_v2(), path.strip_prefix("/")) {
        let _ = fs::remove_dir(Path::new(UNIFIED).join(path));
    }
}

/// OCI's limits as ours. Those that a running container cannot be given are left out.
pub fn limits(resources: &LinuxResources) -> Limits {
    let cpu = resources.cpu().clone().unwrap_or_default();
    let memory = resources.memory().unwrap_or_default();
    let hugepages = resources.hugepage_limits().iter().flatten();
    let unified = resources.unified().iter().flatten();
    Limits {
        cpu_shares: cpu.shares(),
        cpu_quota: cpu.quota(),
        cpu_period: cpu.period(),
        cpuset_cpus: cpu.cpus().clone().filter(|list| !list.is_empty()),
        cpuset_mems: cpu.mems().clone().filter(|list| !list.is_empty()),
        memory: memory.limit(),
        memory_swap: memory.swap(),
        pids: resources.pids().map(|pids| pids.limit()),
        hugepages: hugepages
            .map(|page| (page.page_size().clone(), page.limit().max(0).cast_unsigned()))
            .collect(),
        unified: unified.map(|(k, v)| (k.clone(), v.clone())).collect::<BTreeMap<_, _>>(),
    }
}

/// What the cgroup uses, as containerd's shims tell it.
pub fn metrics(layout: &Layout, cgroup: &Cgroup) -> Result<Any, Error> {
    let doing = "reading the container's cgroup";
    let stats = cgroup.stats().map_err(Error::kernel(doing))?;
    let (url, bytes) = if layout.is_v2() {
        (METRICS_V2_URL, of_v2(&stats).write_to_bytes())
    } else {
        (METRICS_V1_URL, of_v1(&stats).write_to_bytes())
    };
    let value = bytes.map_err(|e| Error::bad("the metrics", e.to_string()))?;
    Ok(Any { type_url: url.to_owned(), value, ..Any::default() })
}

fn some<T>(message: T) -> MessageField<T> {
    MessageField::some(message)
}

fn of_v1(stats: &Stats) -> v1::Metrics {
    let usage = v1::CPUUsage {
        total: stats.cpu_usage_ns,
        kernel: stats.cpu_system_ns,
        user: stats.cpu_user_ns,
        ..Default::default()
    };
    let throttling = v1::Throttle {
        periods: stats.cpu_periods,
        throttled_periods: stats.cpu_throttled_periods,
        throttled_time: stats.cpu_throttled_ns,
        ..Default::default()
    };
    let (usage, throttling) = (some(usage), some(throttling));
    let oom_control = v1::MemoryOomControl { oom_kill: stats.oom_kills, ..Default::default() };
    let hugetlb = stats.hugepages.iter().map(|pages| v1::HugetlbStat {
        usage: pages.usage,
        max: pages.max_usage.unwrap_or_default(),
        pagesize: pages.size.clone(),
        ..Default::default()
    });
    v1::Metrics {
        hugetlb: hugetlb.collect(),
        blkio: some(blkio_v1(&stats.io)),
        pids: some(v1::PidsStat {
            current: stats.pids,
            limit: no_limit_is_zero(stats.pids_limit),
            ..Default::default()
        }),
        cpu: some(v1::CPUStat { usage, throttling, ..Default::default() }),
        memory: some(memory_v1(stats)),
        memory_oom_control: some(oom_control),
        ..Default::default()
    }
}

fn blkio_v1(io: &[Io]) -> v1::BlkIOStat {
    let entry = |io: &Io, op: &str, value| v1::BlkIOEntry {
        op: op.to_owned(),
        major: io.major.into(),
        minor: io.minor.into(),
        value,
        ..Default::default()
    };
    let bytes = |io| [entry(io, "Read", io.read_bytes), entry(io, "Write", io.written_bytes)];
    let times = |io| [entry(io, "Read", io.reads), entry(io, "Write", io.writes)];
    v1::BlkIOStat {
        io_service_bytes_recursive: io.iter().flat_map(bytes).collect(),
        io_serviced_recursive: io.iter().flat_map(times).collect(),
        ..Default::default()
    }
}

fn memory_v1(stats: &Stats) -> v1::MemoryStat {
    let inactive_file = stats.memory_usage.saturating_sub(stats.working_set);
    let usage = v1::MemoryEntry {
        limit: stats.memory_limit,
        usage: stats.memory_usage,
        max: stats.memory_max_usage,
        failcnt: stats.memory_failures,
        ..Default::default()
    };
    let swap = v1::MemoryEntry {
        limit: stats.memory_limit.saturating_add(stats.swap_limit),
        usage: stats.memory_usage.saturating_add(stats.swap_usage),
        ..Default::default()
    };
    let kernel = v1::MemoryEntry { usage: stats.kernel_memory, ..Default::default() };
    v1::MemoryStat {
        cache: stats.cache,
        rss: stats.rss,
        mapped_file: stats.mapped_file,
        pg_fault: stats.page_faults,
        pg_maj_fault: stats.major_page_faults,
        inactive_file,
        total_cache: stats.cache,
        total_rss: stats.rss,
        total_mapped_file: stats.mapped_file,
        total_pg_fault: stats.page_faults,
        total_pg_maj_fault: stats.major_page_faults,
        total_inactive_file: inactive_file,
        hierarchical_memory_limit: stats.memory_limit,
        usage: some(usage),
        swap: some(swap),
        kernel: some(kernel),
        ..Default::default()
    }
}

fn of_v2(stats: &Stats) -> v2::Metrics {
    let cpu = v2::CPUStat {
        usage_usec: stats.cpu_usage_ns / 1000,
        user_usec: stats.cpu_user_ns / 1000,
        system_usec: stats.cpu_system_ns / 1000,
        nr_periods: stats.cpu_periods,
        nr_throttled: stats.cpu_throttled_periods,
        throttled_usec: stats.cpu_throttled_ns / 1000,
        psi: psi(stats.cpu_pressure),
        ..Default::default()
    };
    let memory = v2::MemoryStat {
        anon: stats.rss,
        file: stats.cache,
        file_mapped: stats.mapped_file,
        kernel: stats.kernel_memory,
        inactive_file: stats.memory_usage.saturating_sub(stats.working_set),
        pgfault: stats.page_faults,
        pgmajfault: stats.major_page_faults,
        usage: stats.memory_usage,
        usage_limit: stats.memory_limit,
        swap_usage: stats.swap_usage,
        swap_limit: stats.swap_limit,
        max_usage: stats.memory_max_usage,
        psi: psi(stats.memory_pressure),
        ..Default::default()
    };
    let (max, oom_kill) = (stats.memory_failures, stats.oom_kills);
    let events = v2::MemoryEvents { max, oom_kill, ..Default::default() };
    let hugetlb = stats.hugepages.iter().map(|pages| v2::HugeTlbStat {
        current: pages.usage,
        pagesize: pages.size.clone(),
        ..Default::default()
    });
    v2::Metrics {
        pids: some(v2::PidsStat {
            current: stats.pids,
            limit: no_limit_is_zero(stats.pids_limit),
            ..Default::default()
        }),
        cpu: some(cpu),
        memory: some(memory),
        memory_events: some(events),
        io: some(io_v2(stats)),
        hugetlb: hugetlb.collect(),
        ..Default::default()
    }
}

fn io_v2(stats: &Stats) -> v2::IOStat {
    let entry = |io: &Io| v2::IOEntry {
        major: io.major.into(),
        minor: io.minor.into(),
        rbytes: io.read_bytes,
        wbytes: io.written_bytes,
        rios: io.reads,
        wios: io.writes,
        ..Default::default()
    };
    let usage = stats.io.iter().map(entry).collect();
    v2::IOStat { usage, psi: psi(stats.io_pressure), ..Default::default() }
}

/// None on a kernel that does not keep it.
fn psi(pressure: Option<Pressure>) -> MessageField<v2::PSIStats> {
    let data = |stall: Stall| {
        some(v2::PSIData {
            avg10: stall.avg10,
            avg60: stall.avg60,
            avg300: stall.avg300,
            total: stall.total_us,
            ..Default::default()
        })
    };
    MessageField::from_option(pressure.map(|pressure| v2::PSIStats {
        some: data(pressure.some),
        full: data(pressure.full),
        ..Default::default()
    }))
}

/// containerd says "no limit" of pids with 0.
fn no_limit_is_zero(limit: u64) -> u64 {
    if limit == u64::MAX { 0 } else { limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_the_hierarchy_that_counts() {
        let hybrid = "9:name=systemd:/\n5:cpu,cpuacct:/a\n4:memory:/a/b:c\n0::/u\n";
        assert_eq!(path(hybrid, false), Some("/a/b:c".into()));
        assert_eq!(path(hybrid, true), Some("/u".into()));
        assert_eq!(path("8:pids:/p\n", false), Some("/p".into()));
        assert_eq!(path("nonsense\n", false), None);
    }

    #[test]
    fn pressure_is_told_where_the_kernel_keeps_it() {
        let mut stats = Stats::default();
        assert!(of_v2(&stats).cpu.psi.is_none());
        let some = Stall { total_us: 7, avg10: 0.5, ..Stall::default() };
        stats.cpu_pressure = Some(Pressure { some, full: Stall::default() });
        let told = of_v2(&stats);
        assert_eq!((told.cpu.psi.some.total, told.cpu.psi.some.avg10), (7, 0.5));
        assert!(told.memory.psi.is_none());
    }

    #[test]
    fn what_was_read_and_written_is_told_on_both_versions() {
        let io = Io { major: 8, minor: 1, read_bytes: 5, written_bytes: 6, reads: 1, writes: 2 };
        let stats = Stats { io: vec![io], ..Stats::default() };
        let entry = &of_v2(&stats).io.usage[0];
        assert_eq!((entry.major, entry.minor, entry.rbytes, entry.wbytes), (8, 1, 5, 6));
        let told = of_v1(&stats);
        let bytes = told.blkio.io_service_bytes_recursive.iter();
        let bytes: Vec<_> = bytes.map(|entry| (entry.op.as_str(), entry.value)).collect();
        assert_eq!(bytes, [("Read", 5), ("Write", 6)]);
    }

    #[test]
    fn limits_that_are_not_asked_for_are_left_alone() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"cpu":{"shares":512,"cpus":""},"memory":{"limit":100},"pids":{"limit":7},
                "hugepageLimits":[{"pageSize":"2MB","limit":0}],"unified":{"a.b":"1"}}"#,
        )
        .unwrap();
        let limits = limits(&resources);
        assert_eq!(
            (limits.cpu_shares, limits.cpu_quota, limits.memory),
            (Some(512), None, Some(100))
        );
        assert_eq!((limits.cpuset_cpus, limits.pids), (None, Some(7)));
        assert_eq!(limits.hugepages, [("2MB".to_owned(), 0)]);
        assert_eq!(limits.unified.get("a.b").map(String::as_str), Some("1"));
    }
}
