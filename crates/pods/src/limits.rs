//! Limits, as a plan has them, and as cgroups and OCI take them. What this host has no controller for
//! is left out, as containerd does, and told.

use sys::cgroup::Limits;

use crate::{Error, plan::Resources};

/// None for a number that says nothing.
fn said(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

fn word(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(crate) fn of(resources: &Resources) -> Limits {
    Limits {
        cpu_shares: said(resources.cpu_shares).and_then(|n| u64::try_from(n).ok()),
        cpu_quota: said(resources.cpu_quota),
        cpu_period: said(resources.cpu_period).and_then(|n| u64::try_from(n).ok()),
        cpuset_cpus: word(&resources.cpuset_cpus),
        cpuset_mems: word(&resources.cpuset_mems),
        memory: said(resources.memory),
        memory_swap: said(resources.memory_swap),
        pids: None,
        hugepages: resources.hugepages.clone(),
        unified: resources.unified.clone(),
    }
}

/// The limits of a pod in whole.
pub(crate) fn of_pod(overhead: &Resources, resources: &Resources) -> Limits {
    of(&sum(overhead, resources))
}

/// The limits that this host can keep, and in words what had to be left out.
pub(crate) fn clip(node: &oci::Node, mut limits: Limits) -> (Limits, Vec<String>) {
    let mut left_out = Vec::new();
    let mut leave_out = |what: &str| left_out.push(what.to_owned());
    if !limits.hugepages.is_empty() && !node.hugetlb {
        leave_out("limits of huge pages: this host has no hugetlb controller");
        limits.hugepages.clear();
    }
    if !limits.unified.is_empty() && !node.cgroup_v2 {
        leave_out("files of cgroup v2: this host has cgroup v1");
        limits.unified.clear();
    }
    if limits.memory_swap.is_some() && !node.swap_accounting {
        leave_out("the limit of swap: this host does not account for swap");
        limits.memory_swap = None;
    }
    (limits, left_out)
}

/// What a sandbox and the containers in it may use together. Where the containers have no limit,
/// the pod has none.
pub(crate) fn sum(overhead: &Resources, resources: &Resources) -> Resources {
    let limit = |limit: i64, more: i64| match limit {
        ..=0 => limit,
        limit => limit.saturating_add(more.max(0)),
    };
    let period = |period: i64| if period > 0 { period } else { DEFAULT_PERIOD };
    // In the containers' period.
    let quota = i128::from(overhead.cpu_quota.max(0)) * i128::from(period(resources.cpu_period))
        / i128::from(period(overhead.cpu_period));
    Resources {
        cpu_quota: limit(resources.cpu_quota, i64::try_from(quota).unwrap_or(i64::MAX)),
        cpu_shares: resources.cpu_shares.saturating_add(overhead.cpu_shares),
        memory: limit(resources.memory, overhead.memory),
        memory_swap: limit(resources.memory_swap, overhead.memory),
        hugepages: hugepages(&overhead.hugepages, &resources.hugepages),
        ..resources.clone()
    }
}

/// The kernel's own, in microseconds.
const DEFAULT_PERIOD: i64 = 100_000;

fn hugepages(overhead: &[(String, u64)], resources: &[(String, u64)]) -> Vec<(String, u64)> {
    let one = |(size, limit): &(String, u64)| {
        let more = overhead.iter().filter(|(of, _)| of == size).map(|(_, more)| more);
        (size.clone(), more.fold(*limit, |sum, more| sum.saturating_add(*more)))
    };
    resources.iter().map(one).collect()
}

/// The same limits in the words of the OCI config, which adds what goes without saying: without a
/// limit of swap, memory and swap together are limited as memory is.
pub(crate) fn oci(resources: &Resources) -> oci::Resources {
    let limits = of(resources);
    oci::Resources {
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota,
        cpu_period: limits.cpu_period,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        pids: None,
        hugepages: limits.hugepages,
        unified: limits.unified,
    }
}

/// What holds after an update: what it says, and where it says nothing what held before.
pub(crate) fn merge(old: &Resources, new: &Resources) -> Resources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    Resources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory: number(old.memory, new.memory),
        memory_swap: number(old.memory_swap, new.memory_swap),
        oom_score_adj: old.oom_score_adj,
        cpuset_cpus: text(&old.cpuset_cpus, &new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &new.cpuset_mems),
        hugepages: if new.hugepages.is_empty() {
            old.hugepages.clone()
        } else {
            new.hugepages.clone()
        },
        unified,
    }
}

/// Checks what the kernel would only refuse half way.
pub(crate) fn check(resources: &Resources, field: &str) -> Result<(), Error> {
    let both = resources.memory > 0 && resources.memory_swap > 0;
    if both && resources.memory_swap < resources.memory {
        return Err(Error::rejected(
            format!("{field}.memory_swap_limit_in_bytes"),
            "is below memory_limit_in_bytes, which it includes",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let old = Resources { memory: 64, cpu_shares: 5, ..Resources::default() };
        let new = Resources { cpu_shares: 7, ..Resources::default() };
        let merged = merge(&old, &new);
        assert_eq!((merged.memory, merged.cpu_shares), (64, 7));
    }

    #[test]
    fn a_pod_may_use_what_its_sandbox_and_its_containers_may() {
        let overhead = Resources {
            memory: 16,
            cpu_shares: 10,
            cpu_quota: 5_000,
            cpu_period: 50_000,
            ..Resources::default()
        };
        let resources = Resources {
            memory: 64,
            memory_swap: -1,
            cpu_shares: 2,
            cpu_quota: 20_000,
            hugepages: vec![("2MB".into(), 7)],
            ..Resources::default()
        };
        let whole = sum(&overhead, &resources);
        assert_eq!((whole.memory, whole.memory_swap, whole.cpu_shares), (80, -1, 12));
        assert_eq!(whole.cpu_quota, 30_000);
        assert_eq!(whole.hugepages, resources.hugepages);
        let free = sum(&overhead, &Resources::default());
        assert_eq!((free.memory, free.cpu_quota), (0, 0), "no limit stays none");
    }

    #[test]
    fn what_the_host_cannot_keep_is_left_out_and_told() {
        let all = Limits {
            memory: Some(1),
            memory_swap: Some(1),
            hugepages: vec![("2MB".into(), 7)],
            unified: [("memory.min".to_owned(), "1".to_owned())].into(),
            ..Limits::default()
        };
        let layout = sys::cgroup::Layout::V2 { root: "/nowhere".into() };
        let mut node = controllers::node(&layout);
        (node.cgroup_v2, node.hugetlb, node.swap_accounting) = (false, false, false);
        let (kept, left_out) = clip(&node, all);
        assert_eq!(kept, Limits { memory: Some(1), ..Limits::default() });
        assert_eq!(left_out.len(), 3);
    }

    #[test]
    fn swap_that_is_less_than_memory_is_refused() {
        let bad = Resources { memory: 64, memory_swap: 32, ..Resources::default() };
        assert!(check(&bad, "linux").is_err());
        assert!(check(&Resources { memory_swap: -1, ..bad }, "linux").is_ok());
    }
}
