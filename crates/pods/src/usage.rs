//! What a supervisor tells of a container's cgroup, in the terms of `sys::cgroup`: the same for both
//! versions, and for a cgroup that is read here. What it does not tell is zero, or none.

use std::collections::BTreeMap;

use shim_api::{Stats, cgroups_v1 as v1, cgroups_v2 as v2};
use sys::cgroup::{HugepageUse, Io, Pressure, Stall, Stats as Usage};

/// A limit as large as this is none: cgroup v1 says "no limit" by its largest number of pages.
const NO_LIMIT: u64 = 1 << 62;

pub(crate) fn told(stats: &Stats) -> Usage {
    match stats {
        Stats::V1(metrics) => of_v1(metrics),
        Stats::V2(metrics) => of_v2(metrics),
    }
}

/// containerd's shims say "no limit" by zero, by the greatest number, or by a very great one.
fn limit(told: u64) -> u64 {
    if told == 0 || told >= NO_LIMIT { u64::MAX } else { told }
}

fn of_v1(metrics: &v1::Metrics) -> Usage {
    let (cpu, throttling) = (&metrics.cpu.usage, &metrics.cpu.throttling);
    let memory = &metrics.memory;
    let (usage, swap) = (&memory.usage, &memory.swap);
    let memory_limit = limit(usage.limit);
    let hugepage = |told: &v1::HugetlbStat| HugepageUse {
        size: told.pagesize.clone(),
        usage: told.usage,
        max_usage: Some(told.max),
    };
    Usage {
        cpu_usage_ns: cpu.total,
        cpu_user_ns: cpu.user,
        cpu_system_ns: cpu.kernel,
        cpu_periods: throttling.periods,
        cpu_throttled_periods: throttling.throttled_periods,
        cpu_throttled_ns: throttling.throttled_time,
        memory_usage: usage.usage,
        memory_limit,
        memory_max_usage: usage.max,
        memory_failures: usage.failcnt,
        oom_kills: metrics.memory_oom_control.oom_kill,
        working_set: usage.usage.saturating_sub(memory.total_inactive_file),
        rss: memory.total_rss,
        cache: memory.total_cache,
        mapped_file: memory.total_mapped_file,
        kernel_memory: memory.kernel.usage,
        page_faults: memory.total_pg_fault,
        major_page_faults: memory.total_pg_maj_fault,
        // Version 1 counts memory and swap together.
        swap_usage: swap.usage.saturating_sub(usage.usage),
        swap_limit: match limit(swap.limit) {
            u64::MAX => u64::MAX,
            both => both.saturating_sub(memory_limit),
        },
        pids: metrics.pids.current,
        pids_limit: limit(metrics.pids.limit),
        io: io_of_v1(&metrics.blkio),
        hugepages: metrics.hugetlb.iter().map(hugepage).collect(),
        ..Usage::default()
    }
}

fn io_of_v1(blkio: &v1::BlkIOStat) -> Vec<Io> {
    let mut devices: BTreeMap<(u32, u32), Io> = BTreeMap::new();
    let bytes = blkio.io_service_bytes_recursive.iter().map(|entry| (entry, true));
    let times = blkio.io_serviced_recursive.iter().map(|entry| (entry, false));
    for (entry, counts_bytes) in bytes.chain(times) {
        let Some((major, minor)) = device(entry.major, entry.minor) else { continue };
        let io = devices.entry((major, minor)).or_default();
        (io.major, io.minor) = (major, minor);
        // The others are sums of these two, or of parts of them.
        match (entry.op.as_str(), counts_bytes) {
            ("Read", true) => io.read_bytes = entry.value,
            ("Write", true) => io.written_bytes = entry.value,
            ("Read", false) => io.reads = entry.value,
            ("Write", false) => io.writes = entry.value,
            _ => {}
        }
    }
    devices.into_values().collect()
}

/// Numbers that no device has are not guessed at.
fn device(major: u64, minor: u64) -> Option<(u32, u32)> {
    Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
}

fn of_v2(metrics: &v2::Metrics) -> Usage {
    let (cpu, memory, events) = (&metrics.cpu, &metrics.memory, &metrics.memory_events);
    let hugepage = |told: &v2::HugeTlbStat| HugepageUse {
        size: told.pagesize.clone(),
        usage: told.current,
        max_usage: None,
    };
    Usage {
        cpu_usage_ns: cpu.usage_usec.saturating_mul(1000),
        cpu_user_ns: cpu.user_usec.saturating_mul(1000),
        cpu_system_ns: cpu.system_usec.saturating_mul(1000),
        cpu_periods: cpu.nr_periods,
        cpu_throttled_periods: cpu.nr_throttled,
        cpu_throttled_ns: cpu.throttled_usec.saturating_mul(1000),
        memory_usage: memory.usage,
        memory_limit: limit(memory.usage_limit),
        memory_max_usage: memory.max_usage,
        memory_failures: events.max,
        oom_kills: events.oom_kill,
        working_set: memory.usage.saturating_sub(memory.inactive_file),
        rss: memory.anon,
        cache: memory.file,
        mapped_file: memory.file_mapped,
        // A shim that is not ours tells the two largest parts.
        kernel_memory: memory.kernel.max(memory.kernel_stack.saturating_add(memory.slab)),
        page_faults: memory.pgfault,
        major_page_faults: memory.pgmajfault,
        swap_usage: memory.swap_usage,
        // Zero is a limit too: no swap at all.
        swap_limit: if memory.swap_limit >= NO_LIMIT { u64::MAX } else { memory.swap_limit },
        pids: metrics.pids.current,
        pids_limit: limit(metrics.pids.limit),
        io: metrics.io.usage.iter().filter_map(io_of_v2).collect(),
        hugepages: metrics.hugetlb.iter().map(hugepage).collect(),
        cpu_pressure: pressure(cpu.psi.as_ref()),
        memory_pressure: pressure(memory.psi.as_ref()),
        io_pressure: pressure(metrics.io.psi.as_ref()),
    }
}

fn io_of_v2(entry: &v2::IOEntry) -> Option<Io> {
    let (major, minor) = device(entry.major, entry.minor)?;
    Some(Io {
        major,
        minor,
        read_bytes: entry.rbytes,
        written_bytes: entry.wbytes,
        reads: entry.rios,
        writes: entry.wios,
    })
}

fn pressure(told: Option<&v2::PSIStats>) -> Option<Pressure> {
    let stall = |data: &v2::PSIData| Stall {
        avg10: data.avg10,
        avg60: data.avg60,
        avg300: data.avg300,
        total_us: data.total,
    };
    told.map(|told| Pressure { some: stall(&told.some), full: stall(&told.full) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(op: &str, value: u64) -> v1::BlkIOEntry {
        v1::BlkIOEntry { op: op.into(), major: 8, minor: 1, value, ..Default::default() }
    }

    #[test]
    fn a_limit_beyond_any_memory_is_none() {
        assert_eq!([0, !4095, 5].map(limit), [u64::MAX, u64::MAX, 5]);
    }

    #[test]
    fn swap_is_told_without_memory_on_both_versions() {
        let mut metrics = v1::Metrics::default();
        let memory = metrics.memory.mut_or_insert_default();
        let usage = memory.usage.mut_or_insert_default();
        (usage.usage, usage.limit) = (10, 100);
        let swap = memory.swap.mut_or_insert_default();
        (swap.usage, swap.limit) = (13, 150);
        let usage = of_v1(&metrics);
        assert_eq!((usage.swap_usage, usage.swap_limit), (3, 50));

        let mut metrics = v2::Metrics::default();
        metrics.memory.mut_or_insert_default().swap_usage = 3;
        let usage = of_v2(&metrics);
        assert_eq!((usage.swap_usage, usage.swap_limit), (3, 0));
    }

    #[test]
    fn what_was_read_and_written_is_told_by_device() {
        let blkio = v1::BlkIOStat {
            io_service_bytes_recursive: vec![
                entry("Read", 5),
                entry("Total", 9),
                entry("Write", 4),
            ],
            io_serviced_recursive: vec![entry("Write", 2), entry("Read", 1)],
            ..Default::default()
        };
        let io = Io { major: 8, minor: 1, read_bytes: 5, written_bytes: 4, reads: 1, writes: 2 };
        assert_eq!(io_of_v1(&blkio), [io]);
    }

    #[test]
    fn pressure_that_is_not_told_is_none() {
        let mut metrics = v2::Metrics::default();
        assert_eq!(of_v2(&metrics).cpu_pressure, None);
        let psi = metrics.cpu.mut_or_insert_default().psi.mut_or_insert_default();
        psi.some.mut_or_insert_default().total = 7;
        assert_eq!(of_v2(&metrics).cpu_pressure.map(|pressure| pressure.some.total_us), Some(7));
    }

    fn parse(url: &str, bytes: &[u8]) -> Option<Stats> {
        let mut reply = shim_api::task::StatsResponse::default();
        let any = reply.stats.mut_or_insert_default();
        (any.type_url, any.value) = (url.to_owned(), bytes.to_owned());
        reply.try_into().ok()
    }

    proptest! {
        #[test]
        fn whatever_a_shim_tells_is_taken_without_a_panic(bytes: Vec<u8>) {
            for url in [shim_api::METRICS_V1_URL, shim_api::METRICS_V2_URL] {
                let _ = parse(url, &bytes).map(|stats| told(&stats));
            }
        }
    }
}
