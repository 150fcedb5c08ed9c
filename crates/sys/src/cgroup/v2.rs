//! What version 2 wants otherwise than version 1: controllers handed down level by level, and
//! limits in its own words.

use std::{fs, io, path::Path};

use super::{
    Device, Limits, bpf, device_program,
    file::{self, Write},
    limits::{bytes_or_max, or_max, swap_alone, weight},
};

pub(super) const SWAP: &str = "memory.swap.max";
const HANDED_DOWN: &str = "cgroup.subtree_control";

/// Hands every controller of `parent` down to its children. One that will not go (`cpu` beside
/// real-time processes, any beside processes in `parent` itself) is left: a limit that needs it is
/// then refused, and says so.
pub(super) fn enable_controllers(parent: &Path) -> io::Result<()> {
    let all = file::read(&parent.join("cgroup.controllers"))?.unwrap_or_default();
    let down = parent.join(HANDED_DOWN);
    let already = file::read(&down)?.unwrap_or_default();
    let missing: Vec<String> = all
        .split_whitespace()
        .filter(|name| !already.split_whitespace().any(|a| a == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() || file::write(&down, &missing.join(" ")).is_ok() {
        return Ok(());
    }
    for one in &missing {
        let _ = file::write(&down, one);
    }
    Ok(())
}

/// Whether the cgroup has got every controller that the limits need: the host's having it is not
/// enough, for each cgroup above must hand it down.
pub(super) fn check_handed_down(dir: &Path, limits: &Limits) -> io::Result<()> {
    // One that is not there is found out by the first write.
    let Some(has) = file::read(&dir.join("cgroup.controllers"))? else { return Ok(()) };
    let needs = limits.needs(true);
    let lacking = |controller: &str| !has.split_whitespace().any(|name| name == controller);
    let Some(need) = needs.into_iter().find(|need| lacking(&need.controller)) else {
        return Ok(());
    };
    let above = dir.parent().unwrap_or(dir).join(HANDED_DOWN);
    let why = format!("{need}, which {} does not hand down", above.display());
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

/// What to write, in order.
pub(super) fn writes(dir: &Path, limits: &Limits) -> io::Result<Vec<Write>> {
    let swap =
        swap_alone(limits).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    // A kernel without swap needs no limit on it.
    let swap = swap.filter(|swap| *swap >= 0 || dir.join(SWAP).exists());
    let mut writes = Vec::new();
    let mut put = |file: &str, value: Option<String>| {
        writes.extend(value.map(|value| Write::new(dir, file, value)));
    };
    put("cpu.weight", limits.cpu_shares.map(|shares| weight(shares).to_string()));
    put("cpu.max", bandwidth(dir, limits)?);
    put("cpuset.cpus", limits.cpuset_cpus.clone());
    put("cpuset.mems", limits.cpuset_mems.clone());
    put("memory.max", limits.memory.map(bytes_or_max));
    put(SWAP, swap.map(bytes_or_max));
    put("pids.max", limits.pids.map(or_max));
    for (size, limit) in &limits.hugepages {
        let reserved = format!("hugetlb.{size}.rsvd.max");
        put(&reserved, dir.join(&reserved).exists().then(|| limit.to_string()));
        put(&format!("hugetlb.{size}.max"), Some(limit.to_string()));
    }
    // Last: who names a file of v2 outright means that file.
    for (file, value) in &limits.unified {
        put(file, Some(value.clone()));
    }
    Ok(writes)
}

/// Quota and period share a file; the one that is not given stays as it is.
fn bandwidth(dir: &Path, limits: &Limits) -> io::Result<Option<String>> {
    match (limits.cpu_quota, limits.cpu_period) {
        (None, None) => Ok(None),
        (Some(quota), None) => Ok(Some(or_max(quota))),
        (Some(quota), Some(period)) => Ok(Some(format!("{} {period}", or_max(quota)))),
        (None, Some(period)) => {
            let now = file::read(&dir.join("cpu.max"))?.unwrap_or_default();
            let quota = now.split_whitespace().next().unwrap_or("max");
            Ok(Some(format!("{quota} {period}")))
        }
    }
}

/// There is no file for it: the kernel asks a program.
pub(super) fn rule_devices(dir: &Path, rules: &[Device]) -> io::Result<()> {
    let Some(program) = device_program::of(rules)? else { return Ok(()) };
    let group = fs::File::open(dir).map_err(|e| file::at("opening", dir, e))?;
    bpf::ask_about_devices(&group, &program).map_err(|e| file::at("binding a program to", dir, e))
}

pub(super) fn oom_kills(dir: &Path) -> io::Result<u64> {
    let events = file::read(&dir.join("memory.events"))?.unwrap_or_default();
    Ok(file::field(&events, "oom_kill"))
}
