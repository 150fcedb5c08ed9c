//! What a cgroup uses, in one set of terms for both versions. A controller that the host lacks
//! leaves its numbers at zero.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Cgroup,
    file::{self, field, number},
};

/// Version 1 says "no limit" with the greatest number of whole pages that fits an i64.
const NO_LIMIT_V1: u64 = i64::MAX.cast_unsigned() >> 16 << 16;

/// Use of a cgroup and all below it. Times are in nanoseconds, sizes in bytes, and no limit is
/// `u64::MAX`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub cpu_usage_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    /// Periods in which the CPU quota was in force, and those in which it ran out.
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_ns: u64,
    pub memory_usage: u64,
    pub memory_limit: u64,
    pub memory_max_usage: u64,
    /// How often the limit was met.
    pub memory_failures: u64,
    /// How many of its processes, and of those below it, the kernel has killed for want of memory.
    pub oom_kills: u64,
    /// Usage less the file pages that have not been used of late.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub kernel_memory: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_usage: u64,
    /// Of swap alone.
    pub swap_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    pub pids_limit: u64,
    /// By device, in order.
    pub io: Vec<Io>,
    /// By page size, in order.
    pub hugepages: Vec<HugepageUse>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// What was read from and written to one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    pub major: u32,
    pub minor: u32,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Huge pages of one size, named as the kernel does: `2MB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugepageUse {
    pub size: String,
    pub usage: u64,
    /// None on version 2, which does not tell.
    pub max_usage: Option<u64>,
}

/// Pressure stall information, on kernels that keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// Shares in percent of the last 10, 60 and 300 seconds, and microseconds since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total_us: u64,
}

pub(super) fn of_v2(dir: &Path) -> io::Result<Stats> {
    let text = |name: &str| Ok::<_, io::Error>(file::read(&dir.join(name))?.unwrap_or_default());
    let value = |name: &str| number(&dir.join(name));
    let cpu = text("cpu.stat")?;
    let memory = text("memory.stat")?;
    let events = text("memory.events")?;
    let us = |key| field(&cpu, key).saturating_mul(1000);
    let usage = value("memory.current")?;
    Ok(Stats {
        cpu_usage_ns: us("usage_usec"),
        cpu_user_ns: us("user_usec"),
        cpu_system_ns: us("system_usec"),
        cpu_periods: field(&cpu, "nr_periods"),
        cpu_throttled_periods: field(&cpu, "nr_throttled"),
        cpu_throttled_ns: us("throttled_usec"),
        memory_usage: usage,
        memory_limit: value("memory.max")?,
        memory_max_usage: value("memory.peak")?,
        memory_failures: field(&events, "max"),
        oom_kills: field(&events, "oom_kill"),
        working_set: usage.saturating_sub(field(&memory, "inactive_file")),
        rss: field(&memory, "anon"),
        cache: field(&memory, "file"),
        mapped_file: field(&memory, "file_mapped"),
        kernel_memory: kernel_memory(&memory),
        page_faults: field(&memory, "pgfault"),
        major_page_faults: field(&memory, "pgmajfault"),
        swap_usage: value("memory.swap.current")?,
        swap_limit: value("memory.swap.max")?,
        pids: value("pids.current")?,
        pids_limit: value("pids.max")?,
        io: io_of_v2(&text("io.stat")?),
        hugepages: hugepages(dir, ".current", None)?,
        cpu_pressure: pressure(dir, "cpu.pressure")?,
        memory_pressure: pressure(dir, "memory.pressure")?,
        io_pressure: pressure(dir, "io.pressure")?,
    })
}

pub(super) fn of_v1(group: &Cgroup) -> io::Result<Stats> {
    let path = |controller: &str, name: &str| -> PathBuf {
        // A controller that is not there leads to a file that is not there.
        group.dir_of(controller).map_or_else(PathBuf::new, |dir| dir.join(name))
    };
    let text =
        |c: &str, name: &str| Ok::<_, io::Error>(file::read(&path(c, name))?.unwrap_or_default());
    let value = |c: &str, name: &str| number(&path(c, name));
    let limit = |c: &str, name: &str| Ok::<_, io::Error>(or_none(value(c, name)?));
    let cpu = text("cpu", "cpu.stat")?;
    let memory = text("memory", "memory.stat")?;
    let usage = value("memory", "memory.usage_in_bytes")?;
    let memory_limit = limit("memory", super::v1::MEMORY)?;
    let both = value("memory", "memory.memsw.usage_in_bytes")?;
    let both_limit = limit("memory", super::v1::MEMORY_AND_SWAP)?;
    Ok(Stats {
        cpu_usage_ns: value("cpuacct", "cpuacct.usage")?,
        cpu_user_ns: value("cpuacct", "cpuacct.usage_user")?,
        cpu_system_ns: value("cpuacct", "cpuacct.usage_sys")?,
        cpu_periods: field(&cpu, "nr_periods"),
        cpu_throttled_periods: field(&cpu, "nr_throttled"),
        cpu_throttled_ns: field(&cpu, "throttled_time"),
        memory_usage: usage,
        memory_limit,
        memory_max_usage: value("memory", "memory.max_usage_in_bytes")?,
        memory_failures: value("memory", "memory.failcnt")?
            + value("memory", "memory.memsw.failcnt")?,
        oom_kills: super::v1::oom_kills(group)?,
        working_set: usage.saturating_sub(field(&memory, "total_inactive_file")),
        rss: field(&memory, "total_rss"),
        cache: field(&memory, "total_cache"),
        mapped_file: field(&memory, "total_mapped_file"),
        kernel_memory: value("memory", "memory.kmem.usage_in_bytes")?,
        page_faults: field(&memory, "total_pgfault"),
        major_page_faults: field(&memory, "total_pgmajfault"),
        swap_usage: both.saturating_sub(usage),
        swap_limit: match both_limit {
            u64::MAX => u64::MAX,
            both => both.saturating_sub(memory_limit),
        },
        pids: value("pids", "pids.current")?,
        pids_limit: value("pids", "pids.max")?,
        io: io_of_v1(
            &text("blkio", "blkio.throttle.io_service_bytes_recursive")?,
            &text("blkio", "blkio.throttle.io_serviced_recursive")?,
        ),
        hugepages: match group.dir_of("hugetlb") {
            Some(dir) => hugepages(&dir, ".usage_in_bytes", Some(".max_usage_in_bytes"))?,
            None => Vec::new(),
        },
        ..Stats::default()
    })
}

/// Kernels before 5.18 tell the parts and not the sum.
fn kernel_memory(stat: &str) -> u64 {
    let parts = ["kernel_stack", "pagetables", "percpu", "slab", "vmalloc"];
    match field(stat, "kernel") {
        0 => parts.iter().map(|part| field(stat, part)).sum(),
        sum => sum,
    }
}

fn or_none(limit: u64) -> u64 {
    if limit >= NO_LIMIT_V1 { u64::MAX } else { limit }
}

/// Lines such as `8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=0 dios=0`.
fn io_of_v2(text: &str) -> Vec<Io> {
    let mut found = Vec::new();
    for (device, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
        let Some((major, minor)) = to_device(device) else { continue };
        let mut io = Io { major, minor, ..Io::default() };
        for (key, value) in rest.split_whitespace().filter_map(|part| part.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.written_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => {}
            }
        }
        found.push(io);
    }
    found.sort_by_key(|io| (io.major, io.minor));
    found
}

/// Two files of lines such as `8:0 Read 4096`.
fn io_of_v1(bytes: &str, times: &str) -> Vec<Io> {
    let mut found: BTreeMap<(u32, u32), Io> = BTreeMap::new();
    for (text, counts_bytes) in [(bytes, true), (times, false)] {
        for line in text.lines() {
            let mut parts = line.split_whitespace();
            let Some((major, minor)) = parts.next().and_then(to_device) else { continue };
            let io = found.entry((major, minor)).or_default();
            (io.major, io.minor) = (major, minor);
            let kind = parts.next();
            let value = parts.next().and_then(|value| value.parse().ok()).unwrap_or(0);
            match (kind, counts_bytes) {
                (Some("Read"), true) => io.read_bytes = value,
                (Some("Write"), true) => io.written_bytes = value,
                (Some("Read"), false) => io.reads = value,
                (Some("Write"), false) => io.writes = value,
                _ => {}
            }
        }
    }
    found.into_values().collect()
}

fn to_device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Every page size for which the cgroup has a file `hugetlb.<size><usage>`.
fn hugepages(dir: &Path, usage: &str, max: Option<&str>) -> io::Result<Vec<HugepageUse>> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(Vec::new()) };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut sizes: Vec<String> = names
        .filter_map(|name| Some(name.strip_prefix("hugetlb.")?.strip_suffix(usage)?.to_owned()))
        .filter(|size| !size.contains('.'))
        .collect();
    sizes.sort();
    sizes
        .into_iter()
        .map(|size| {
            let value = |file: &str| number(&dir.join(format!("hugetlb.{size}{file}")));
            Ok(HugepageUse { usage: value(usage)?, max_usage: max.map(value).transpose()?, size })
        })
        .collect()
}

fn pressure(dir: &Path, name: &str) -> io::Result<Option<Pressure>> {
    Ok(file::read(&dir.join(name))?.map(|text| to_pressure(&text)))
}

/// Two lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn to_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for (kind, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
        match kind {
            "some" => pressure.some = to_stall(rest),
            "full" => pressure.full = to_stall(rest),
            _ => {}
        }
    }
    pressure
}

fn to_stall(text: &str) -> Stall {
    let value = |key: &str| {
        let parts = text.split_whitespace().filter_map(|part| part.split_once('='));
        parts.clone().find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let percent = |key| value(key).and_then(|value| value.parse().ok()).unwrap_or(0.0);
    Stall {
        avg10: percent("avg10"),
        avg60: percent("avg60"),
        avg300: percent("avg300"),
        total_us: value("total").and_then(|value| value.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_told_by_device_on_both_versions() {
        let sda = Io { major: 8, minor: 0, read_bytes: 5, written_bytes: 6, reads: 1, writes: 2 };
        let text = "8:16 rbytes=9\n8:0 rbytes=5 wbytes=6 rios=1 wios=2 dbytes=0 dios=0\nnonsense\n";
        let sdb = Io { major: 8, minor: 16, read_bytes: 9, ..Io::default() };
        assert_eq!(io_of_v2(text), [sda, sdb]);
        let bytes = "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n";
        assert_eq!(io_of_v1(bytes, "8:0 Read 1\n8:0 Write 2\n"), [sda]);
    }

    #[test]
    fn no_limit_is_the_greatest_number_on_both_versions() {
        assert_eq!(or_none(9_223_372_036_854_771_712), u64::MAX);
        assert_eq!(or_none(1 << 40), 1 << 40);
        assert_eq!(file::to_number("max\n"), Some(u64::MAX));
    }

    #[test]
    fn memory_of_the_kernel_is_told_in_one_or_in_parts() {
        assert_eq!(kernel_memory("kernel 9\nslab 4\n"), 9);
        assert_eq!(kernel_memory("kernel_stack 1\nslab 4\nanon 7\n"), 5);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(some |full |8:0 |rbytes=|\\PC){0,60}") {
            let _ = (io_of_v2(&text), io_of_v1(&text, &text), to_pressure(&text), field(&text, "a"));
        }
    }
}
