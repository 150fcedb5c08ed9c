//! Limits in OCI's words, for a new container and for one that is resized. What the host has no
//! controller for is left out, with a warning.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use crate::{
    config::Warning,
    plan::{Node, Resources},
    rejected::Rejected,
};

const FIELD: &str = "config.linux.resources";

/// These limits, as far as the node can keep them.
///
/// # Errors
/// A limit is no number or name that the kernel could take.
pub fn resources(
    asked: &Resources,
    node: &Node,
    warnings: &mut Vec<Warning>,
) -> Result<LinuxResources, Rejected> {
    let mut all = LinuxResources::default();
    all.set_cpu(cpu(asked)?)
        .set_memory(memory(asked, node, warnings)?)
        .set_pids(asked.pids.map(pids))
        .set_hugepage_limits(hugepages(asked, node, warnings)?)
        .set_unified(unified(asked, node, warnings)?);
    Ok(all)
}

fn cpu(asked: &Resources) -> Result<Option<LinuxCpu>, Rejected> {
    check_list(asked.cpuset_cpus.as_deref(), "cpuset_cpus")?;
    check_list(asked.cpuset_mems.as_deref(), "cpuset_mems")?;
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(asked.cpu_shares)
        .set_quota(asked.cpu_quota)
        .set_period(asked.cpu_period)
        .set_cpus(asked.cpuset_cpus.clone())
        .set_mems(asked.cpuset_mems.clone());
    Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
}

/// Lists of numbers and ranges, as cpuset(7) has them.
fn check_list(list: Option<&str>, field: &str) -> Result<(), Rejected> {
    let good = |b: u8| b.is_ascii_digit() || b == b',' || b == b'-';
    match list {
        Some(list) if !list.bytes().all(good) => {
            Err(Rejected::new(format!("{FIELD}.{field}"), format!("{list:?} is not like 0-2,7")))
        }
        _ => Ok(()),
    }
}

/// Who sets no limit on swap gets none, as containerd has it.
fn memory(
    asked: &Resources,
    node: &Node,
    warnings: &mut Vec<Warning>,
) -> Result<Option<LinuxMemory>, Rejected> {
    let field = format!("{FIELD}.memory_swap_limit_in_bytes");
    let swap = asked.memory_swap.or(asked.memory).filter(|_| node.swap_accounting);
    if asked.memory_swap.is_some() && swap.is_none() {
        warnings.push(Warning::new(&field, "left out: this node does not account for swap"));
    }
    if let (Some(memory), Some(swap)) = (asked.memory, swap)
        && (0..memory).contains(&swap)
    {
        let why = format!("{swap} of memory and swap is less than {memory} of memory alone");
        return Err(Rejected::new(field, why));
    }
    let mut memory = LinuxMemory::default();
    memory.set_limit(asked.memory).set_swap(swap);
    Ok(Some(memory).filter(|memory| *memory != LinuxMemory::default()))
}

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    // A limit of zero would forbid the first process; as everywhere, it means none.
    pids.set_limit(if limit > 0 { limit } else { -1 });
    pids
}

fn hugepages(
    asked: &Resources,
    node: &Node,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Vec<LinuxHugepageLimit>>, Rejected> {
    let field = format!("{FIELD}.hugepage_limits");
    let mut all = Vec::new();
    for (size, limit) in &asked.hugepages {
        let one = hugepage(size, *limit);
        let why = || format!("{limit} bytes in pages of {size:?} is no limit on huge pages");
        all.push(one.ok_or_else(|| Rejected::new(&field, why()))?);
    }
    // The kubelet sends these, at zero, for every container of a node that has huge pages.
    if !all.is_empty() && !node.hugetlb {
        let what = "left out: this node has no cgroup controller hugetlb";
        warnings.push(Warning::new(field, what));
        all.clear();
    }
    Ok(Some(all).filter(|all| !all.is_empty()))
}

/// The size is part of a file's name: digits and a unit, nothing else.
fn hugepage(size: &str, limit: u64) -> Option<LinuxHugepageLimit> {
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit))?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut page = LinuxHugepageLimit::default();
    page.set_page_size(size.to_owned()).set_limit(i64::try_from(limit).ok()?);
    Some(page)
}

fn unified(
    asked: &Resources,
    node: &Node,
    warnings: &mut Vec<Warning>,
) -> Result<Option<HashMap<String, String>>, Rejected> {
    let field = format!("{FIELD}.unified");
    for name in asked.unified.keys() {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        // The files of the cgroup core move processes; they are no limits.
        if !plain || !name.contains('.') || name.starts_with(['.', '-']) || is_core(name) {
            let why = format!("{name:?} is not the name of a controller's file");
            return Err(Rejected::new(field, why));
        }
    }
    if !asked.unified.is_empty() && !node.cgroup_v2 {
        let names: Vec<&str> = asked.unified.keys().map(String::as_str).collect();
        let what = format!("left out {}: this node has cgroup v1", names.join(", "));
        warnings.push(Warning::new(field, what));
        return Ok(None);
    }
    let all: HashMap<_, _> = asked.unified.clone().into_iter().collect();
    Ok(Some(all).filter(|all| !all.is_empty()))
}

fn is_core(name: &str) -> bool {
    name.starts_with("cgroup.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::node;

    fn of(asked: &Resources) -> Result<(LinuxResources, Vec<Warning>), Rejected> {
        let mut warnings = Vec::new();
        let all = resources(asked, &node(), &mut warnings)?;
        Ok((all, warnings))
    }

    #[test]
    fn who_asks_for_nothing_is_limited_by_nothing() {
        let (all, warnings) = of(&Resources::default()).unwrap();
        assert_eq!(all, LinuxResources::default());
        assert_eq!(warnings, []);
    }

    #[test]
    fn a_limit_on_memory_is_one_on_swap_too() {
        let memory = |memory, memory_swap| {
            let asked = Resources { memory, memory_swap, ..Default::default() };
            of(&asked).map(|(all, _)| all.memory().as_ref().and_then(LinuxMemory::swap))
        };
        assert_eq!(memory(Some(100), None), Ok(Some(100)));
        assert_eq!(memory(Some(100), Some(-1)), Ok(Some(-1)));
        assert_eq!(memory(Some(-1), None), Ok(Some(-1)));
        assert!(memory(Some(100), Some(99)).is_err());
    }

    #[test]
    fn what_the_node_has_no_controller_for_is_left_out_with_a_warning() {
        let mut node = node();
        (node.hugetlb, node.swap_accounting, node.cgroup_v2) = (false, false, false);
        let asked = Resources {
            memory: Some(100),
            memory_swap: Some(200),
            hugepages: vec![("2MB".into(), 0)],
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let mut warnings = Vec::new();
        let all = resources(&asked, &node, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert_eq!(all.memory().as_ref().unwrap().swap(), None);
        assert!(all.hugepage_limits().is_none() && all.unified().is_none());
    }

    #[test]
    fn what_is_no_name_of_a_file_is_never_made_one() {
        for size in ["2mb", "MB", "../2MB", "2MB/x", ""] {
            let hugepages = vec![(size.to_owned(), 1)];
            assert!(of(&Resources { hugepages, ..Default::default() }).is_err(), "{size}");
        }
        for name in ["cgroup.procs", "../memory.max", "memory", "memory/max", ".x"] {
            let unified = [(name.to_owned(), String::new())].into();
            assert!(of(&Resources { unified, ..Default::default() }).is_err(), "{name}");
        }
        let cpuset_cpus = Some("0;1".to_owned());
        assert!(of(&Resources { cpuset_cpus, ..Default::default() }).is_err());
    }
}
