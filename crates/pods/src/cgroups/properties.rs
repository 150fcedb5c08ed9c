//! Limits in the words of systemd's properties. What it has no word for is left to files: it sets those
//! anew never. Pure.

use sys::cgroup::{Limits, weight};
use systemd::{Property, Value};

/// "No limit", and "not set".
const NONE: u64 = u64::MAX;
const DEFAULT_PERIOD: u64 = 100_000;
/// systemd keeps a quota in whole percents of a processor.
const PERCENT: u128 = 10_000;
const SECOND: u128 = 1_000_000;
/// More processors than any kernel has.
const MOST_CPUS: usize = 1 << 14;

/// The limits as properties, the last of one name counting.
pub(super) fn of(limits: &Limits) -> Vec<Property> {
    let mut all = Vec::new();
    let mut put = |name, value: Option<Value>| {
        all.extend(value.map(|value| Property::new(name, value)));
    };
    let bytes = |bytes: i64| Value::Number(u64::try_from(bytes).unwrap_or(NONE));
    put("CPUWeight", limits.cpu_shares.map(|shares| Value::Number(weight(shares))));
    put("CPUQuotaPerSecUSec", limits.cpu_quota.map(|_| Value::Number(per_second(limits))));
    put("CPUQuotaPeriodUSec", limits.cpu_period.map(Value::Number));
    put("AllowedCPUs", limits.cpuset_cpus.as_deref().and_then(set));
    put("AllowedMemoryNodes", limits.cpuset_mems.as_deref().and_then(set));
    put("MemoryMax", limits.memory.map(bytes));
    put("MemorySwapMax", limits.swap_alone().ok().flatten().map(bytes));
    put("TasksMax", limits.pids.filter(|pids| *pids > 0).map(bytes));
    if let Some(bandwidth) = limits.unified.get("cpu.max").and_then(|text| bandwidth(text)) {
        put("CPUQuotaPerSecUSec", Some(Value::Number(per_second(&bandwidth))));
        put("CPUQuotaPeriodUSec", bandwidth.cpu_period.map(Value::Number));
    }
    for (file, text) in &limits.unified {
        let Some(name) = named(file) else { continue };
        let value = if name.starts_with("Allowed") { set(text) } else { number(text) };
        put(name, value);
    }
    all
}

/// The property that stands for a file of cgroup v2.
fn named(file: &str) -> Option<&'static str> {
    Some(match file {
        "cpu.weight" => "CPUWeight",
        "cpuset.cpus" => "AllowedCPUs",
        "cpuset.mems" => "AllowedMemoryNodes",
        "io.weight" => "IOWeight",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.max" => "MemoryMax",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        _ => return None,
    })
}

/// What `cpu.max` says.
fn bandwidth(text: &str) -> Option<Limits> {
    let mut words = text.split_whitespace();
    let quota = match words.next()? {
        "max" => -1,
        quota => quota.parse().ok()?,
    };
    let cpu_period = words.next().map(str::parse).transpose().ok()?;
    Some(Limits { cpu_quota: Some(quota), cpu_period, ..Limits::default() })
}

fn number(text: &str) -> Option<Value> {
    match text.trim() {
        "max" => Some(Value::Number(NONE)),
        digits => digits.parse().ok().map(Value::Number),
    }
}

/// Microseconds of processor time in a second, whole percents of one.
fn per_second(limits: &Limits) -> u64 {
    let quota = u128::try_from(limits.cpu_quota.unwrap_or(-1)).unwrap_or(0);
    let period = u128::from(limits.cpu_period.unwrap_or(DEFAULT_PERIOD).max(1));
    if quota == 0 {
        return NONE;
    }
    let exact = (quota * SECOND).div_ceil(period);
    u64::try_from(exact.div_ceil(PERCENT) * PERCENT).unwrap_or(NONE)
}

/// The limits as systemd keeps them: else what holds would change a little when it sets them anew.
pub(super) fn rounded(limits: &Limits) -> Limits {
    let mut limits = limits.clone();
    let period = limits.cpu_period.unwrap_or(DEFAULT_PERIOD);
    if limits.cpu_quota.is_some_and(|quota| quota > 0) {
        let quota = u128::from(per_second(&limits)) * u128::from(period) / SECOND;
        limits.cpu_quota = i64::try_from(quota).ok();
    }
    limits
}

/// A list as in cpuset(7), as systemd takes it: a bit for each, the lowest first.
fn set(list: &str) -> Option<Value> {
    let mut bytes: Vec<u8> = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST_CPUS {
            return None;
        }
        for one in first..=last {
            bytes.resize(bytes.len().max(one / 8 + 1), 0);
            bytes[one / 8] |= 1 << (one % 8);
        }
    }
    Some(Value::Bytes(bytes))
}

/// What undoes a change: for each property that was set what was there before, or none.
pub(super) fn back(set: &[Property], before: &[Property]) -> Vec<Property> {
    let old = |name| before.iter().rev().find(|old| old.name == name).cloned();
    set.iter().map(|new| old(new.name).unwrap_or_else(|| unset(new))).collect()
}

fn unset(property: &Property) -> Property {
    let value = match (property.name, &property.value) {
        (_, Value::Bytes(_)) => Value::Bytes(Vec::new()),
        ("MemoryLow" | "MemoryMin", _) => Value::Number(0),
        ("CPUQuotaPeriodUSec", _) => Value::Number(DEFAULT_PERIOD),
        _ => Value::Number(NONE),
    };
    Property::new(property.name, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number_of(limits: &Limits, name: &str) -> Option<u64> {
        match of(limits).into_iter().rev().find(|property| property.name == name)?.value {
            Value::Number(number) => Some(number),
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn limits_are_told_in_systemds_words() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota: Some(20_000),
            cpu_period: Some(100_000),
            memory: Some(100),
            memory_swap: Some(150),
            cpuset_cpus: Some("0-2,9".into()),
            ..Limits::default()
        };
        let number = |name| number_of(&limits, name).unwrap();
        assert_eq!(number("CPUWeight"), 100);
        assert_eq!(
            (number("CPUQuotaPerSecUSec"), number("CPUQuotaPeriodUSec")),
            (200_000, 100_000)
        );
        assert_eq!((number("MemoryMax"), number("MemorySwapMax")), (100, 50));
        let cpus = of(&limits).into_iter().find(|property| property.name == "AllowedCPUs");
        assert_eq!(cpus.unwrap().value, Value::Bytes(vec![0b111, 0b10]));
        assert_eq!(rounded(&limits), limits, "whole percents stay as they are");
        assert!(of(&Limits::default()).is_empty(), "what is not asked for is left alone");
    }

    #[test]
    fn files_that_systemd_has_a_word_for_are_told_by_it_and_count_most() {
        let files =
            [("memory.min", "5"), ("memory.high", "max"), ("memory.max", "9"), ("x.y", "1")];
        let unified = files.map(|(file, text)| (file.to_owned(), text.to_owned())).into();
        let limits = Limits { memory: Some(7), unified, ..Limits::default() };
        assert_eq!(number_of(&limits, "MemoryMin"), Some(5));
        assert_eq!(number_of(&limits, "MemoryHigh"), Some(NONE));
        assert_eq!(number_of(&limits, "MemoryMax"), Some(9));
        assert_eq!(of(&limits).len(), 4);
    }

    #[test]
    fn a_quota_is_rounded_up_to_what_systemd_keeps() {
        let limits = Limits { cpu_quota: Some(1_234), ..Limits::default() };
        assert_eq!(number_of(&limits, "CPUQuotaPerSecUSec"), Some(20_000));
        assert_eq!(rounded(&limits).cpu_quota, Some(2_000));
        let free = Limits { cpu_quota: Some(-1), memory: Some(-1), ..Limits::default() };
        assert_eq!(number_of(&free, "CPUQuotaPerSecUSec"), Some(NONE));
        assert_eq!(number_of(&free, "MemoryMax"), Some(NONE));
        assert_eq!(rounded(&free), free);
    }

    #[test]
    fn a_change_is_undone_by_what_was_there() {
        let before = of(&Limits { memory: Some(7), ..Limits::default() });
        let now = of(&Limits { memory: Some(9), cpu_shares: Some(5), ..Limits::default() });
        let (memory, weight) = (Value::Number(7), Value::Number(NONE));
        let expected = [Property::new("CPUWeight", weight), Property::new("MemoryMax", memory)];
        assert_eq!(back(&now, &before), expected);
    }

    proptest! {
        #[test]
        fn no_limit_panics(
            quota: Option<i64>, period: Option<u64>, shares: Option<u64>, memory: Option<i64>,
            both: Option<i64>, pids: Option<i64>, list: String, range in "[0-9,-]{0,12}",
        ) {
            let unified = ["cpuset.cpus", "pids.max"].map(|file| (file.into(), list.clone())).into();
            let limits = Limits {
                cpu_quota: quota, cpu_period: period, cpu_shares: shares, memory, memory_swap: both, pids,
                cpuset_cpus: Some(list), cpuset_mems: Some(range), unified, ..Limits::default()
            };
            let (all, _) = (of(&limits), rounded(&limits));
            let _ = back(&all, &[]);
        }
    }
}
