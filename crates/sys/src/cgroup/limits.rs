//! What a cgroup may be limited to, and the numbers turned from one version's terms into the
//! other's. Reads and writes nothing.

use std::{collections::BTreeMap, fmt};

/// Limits to set. What is `None` or empty is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A relative weight, 2 to 262144, as cgroup v1 counts.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each period; none or less is no limit.
    pub cpu_quota: Option<i64>,
    /// The period in microseconds, 1000 to 1000000.
    pub cpu_period: Option<u64>,
    /// Lists as in cpuset(7): `0-2,7`.
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// Bytes; negative is no limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together, as cgroup v1 and OCI count; negative is no limit.
    pub memory_swap: Option<i64>,
    /// Processes and threads; none or less is no limit.
    pub pids: Option<i64>,
    /// Page size as the kernel names it (`2MB`), and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2 and what to write to them.
    pub unified: BTreeMap<String, String>,
}

/// A limit for which this host has no controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    pub limit: String,
    pub controller: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs the cgroup controller {}", self.limit, self.controller)
    }
}

impl Limits {
    /// Each limit that is set, with the controller it needs.
    pub(super) fn needs(&self, v2: bool) -> Vec<Unsupported> {
        let mut needs = Vec::new();
        let mut need = |set: bool, limit: &str, controller: &str| {
            if set {
                needs.push(Unsupported { limit: limit.into(), controller: controller.into() });
            }
        };
        need(self.cpu_shares.is_some(), "cpu shares", "cpu");
        need(self.cpu_quota.is_some() || self.cpu_period.is_some(), "cpu quota", "cpu");
        need(self.cpuset_cpus.is_some(), "cpuset cpus", "cpuset");
        need(self.cpuset_mems.is_some(), "cpuset mems", "cpuset");
        need(self.memory.is_some(), "memory", "memory");
        need(self.memory_swap.is_some(), "memory and swap", "memory");
        need(self.pids.is_some(), "pids", "pids");
        need(!self.hugepages.is_empty(), "hugepages", "hugetlb");
        for name in self.unified.keys() {
            need(true, name, if v2 { controller_of(name) } else { "v2" });
        }
        needs
    }
}

/// The controller that a file of cgroup v2 belongs to. A file of the cgroup core (`cgroup.procs`)
/// belongs to none, so that it can never be written as a limit.
fn controller_of(name: &str) -> &str {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
    match name.split_once('.') {
        Some((controller, file)) if plain && !file.is_empty() => controller,
        _ => "of no such name",
    }
}

/// The weight of v2, 1 to 10000, for the shares of v1, so that the least, the default and the
/// greatest value of the one are those of the other. (The formula that runc has used since 2025:
/// a quadratic in the logarithm, through 2→1, 1024→100, 262144→10000.)
pub fn weight(shares: u64) -> u64 {
    let shares = u32::try_from(shares.clamp(2, 262_144)).unwrap_or(262_144);
    let log = f64::from(shares).log2();
    let exact = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    (1..10_000_u32).find(|weight| f64::from(*weight) >= exact).unwrap_or(10_000).into()
}

/// Quota or a count in the words of v2: `max` is no limit.
pub(super) fn or_max(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".to_owned() }
}

/// Bytes in the words of v2, where zero is a limit too.
pub(super) fn bytes_or_max(value: i64) -> String {
    if value >= 0 { value.to_string() } else { "max".to_owned() }
}

impl Limits {
    /// Swap alone, as v2 counts it; less than zero is no limit. `None` leaves it as it is.
    ///
    /// # Errors
    /// If the limits contradict each other, and how.
    pub fn swap_alone(&self) -> Result<Option<i64>, &'static str> {
        swap_alone(self)
    }
}

/// Swap alone, as v2 counts it, from memory and swap together. `None` leaves it as it is.
pub(super) fn swap_alone(limits: &Limits) -> Result<Option<i64>, &'static str> {
    match (limits.memory, limits.memory_swap) {
        // Unlimited memory with a limit on swap alone was never meant.
        (Some(memory), None) if memory < 0 => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(both)) if both < 0 => Ok(Some(-1)),
        (Some(memory), Some(both)) if 0 <= memory && memory <= both => Ok(Some(both - memory)),
        (Some(_), Some(_)) => Err("memory and swap together must not be less than memory"),
        (None, Some(_)) => Err("a limit on memory and swap needs one on memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_as_runc_reckons_since_2025() {
        // Reckoned apart, from the formula as published.
        let table = [
            (0, 1),
            (1, 1),
            (2, 1),
            (102, 17),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (1 << 40, 10_000),
        ];
        for (shares, expected) in table {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert_eq!(weight(262_144), 10_000);
        assert!((2..262_144).step_by(97).all(|s| weight(s) <= weight(s + 97)));
    }

    #[test]
    fn swap_is_what_is_left_of_memory_and_swap_together() {
        let swap =
            |memory, memory_swap| swap_alone(&Limits { memory, memory_swap, ..Limits::default() });
        assert_eq!(swap(Some(100), Some(100)), Ok(Some(0)));
        assert_eq!(swap(Some(100), Some(150)), Ok(Some(50)));
        assert_eq!(swap(Some(100), Some(-1)), Ok(Some(-1)));
        assert_eq!(swap(Some(-1), None), Ok(Some(-1)));
        assert_eq!(swap(Some(100), None), Ok(None));
        assert!(swap(Some(100), Some(99)).is_err());
        assert!(swap(None, Some(99)).is_err());
        assert!(swap(Some(-1), Some(99)).is_err());
    }

    #[test]
    fn a_unified_file_belongs_to_the_controller_before_its_dot() {
        assert_eq!(controller_of("memory.oom.group"), "memory");
        for bad in ["memory", "memory.", "memory./../x", "../memory.max", ".x y"] {
            assert_eq!(controller_of(bad), "of no such name", "{bad}");
        }
        assert_eq!(controller_of("cgroup.procs"), "cgroup", "which is no controller of any host");
    }
}
