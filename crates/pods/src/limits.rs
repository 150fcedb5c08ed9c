//! Limits, as a plan has them, and as cgroups and OCI take them. What this host has no controller for
//! is left out, as containerd does, and told.

use sys::cgroup::{Layout, Limits};

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

/// The limits that this host can keep, and in words what had to be left out.
pub(crate) fn clip(layout: &Layout, mut limits: Limits) -> (Limits, Vec<String>) {
    let mut left_out = Vec::new();
    if !limits.hugepages.is_empty() && !layout.has("hugetlb") {
        left_out.push("limits of huge pages: this host has no hugetlb controller".to_owned());
        limits.hugepages.clear();
    }
    (limits, left_out)
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
    fn swap_that_is_less_than_memory_is_refused() {
        let bad = Resources { memory: 64, memory_swap: 32, ..Resources::default() };
        assert!(check(&bad, "linux").is_err());
        assert!(check(&Resources { memory_swap: -1, ..bad }, "linux").is_ok());
    }
}
