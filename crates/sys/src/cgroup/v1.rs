//! What version 1 wants otherwise than version 2: the files of each controller's own hierarchy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Cgroup, Limits,
    file::{self, Write},
    members,
};

pub(super) const MEMORY: &str = "memory.limit_in_bytes";
pub(super) const MEMORY_AND_SWAP: &str = "memory.memsw.limit_in_bytes";

/// A new cpuset has no CPU and no memory node, and a process cannot join it until it has.
pub(super) fn inherit_cpuset(parent: &Path, dir: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = dir.join(name);
        if !file::read(&own)?.is_some_and(|list| list.trim().is_empty()) {
            continue;
        }
        if let Some(list) = file::read(&parent.join(name))? {
            file::write(&own, list.trim())?;
        }
    }
    Ok(())
}

/// Makes the cgroup in one call, if what is above it is there. False if it is not, and nothing is made
/// then.
pub(super) fn make_last(root: &Path, path: &Path, made: &mut Vec<PathBuf>) -> io::Result<bool> {
    let dir = root.join(path);
    match fs::create_dir(&dir) {
        Ok(()) => made.push(dir.clone()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file::at("making", &dir, error)),
    }
    let of_cpus = root.file_name().is_some_and(|name| name.to_string_lossy().contains("cpuset"));
    if let Some(parent) = dir.parent().filter(|_| of_cpus) {
        inherit_cpuset(parent, &dir)?;
    }
    Ok(true)
}

/// What to write where, in an order in which the kernel takes it.
pub(super) fn writes(group: &Cgroup, limits: &Limits) -> io::Result<Vec<Write>> {
    let dir = |controller: &str| group.dir_of(controller).unwrap_or_default();
    let mut writes = Vec::new();
    let mut put = |controller: &str, file: &str, value: Option<String>| {
        writes.extend(value.map(|value| Write::new(&dir(controller), file, value)));
    };
    put("cpu", "cpu.shares", limits.cpu_shares.map(|shares| shares.to_string()));
    put("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone());
    put("cpuset", "cpuset.mems", limits.cpuset_mems.clone());
    put("pids", "pids.max", limits.pids.map(super::limits::or_max));
    writes.extend(bandwidth(&dir("cpu"), limits)?);
    writes.extend(memory(&dir("memory"), limits)?);
    writes.extend(hugepages(&dir("hugetlb"), limits));
    Ok(writes)
}

/// The kernel weighs quota against period, and against the parent's, at each write: a longer
/// period goes first and a shorter one last, so that the share between the two is never greater
/// than that before or after.
fn bandwidth(dir: &Path, limits: &Limits) -> io::Result<Vec<Write>> {
    let quota = limits.cpu_quota.map(|quota| if quota > 0 { quota } else { -1 });
    let quota = quota.map(|quota| Write::new(dir, "cpu.cfs_quota_us", quota));
    let Some(period) = limits.cpu_period else {
        return Ok(quota.into_iter().collect());
    };
    let now = file::number(&dir.join("cpu.cfs_period_us"))?;
    let period_first = period >= now;
    let period = Some(Write::new(dir, "cpu.cfs_period_us", period));
    let order = if period_first { [period, quota] } else { [quota, period] };
    Ok(order.into_iter().flatten().collect())
}

/// Memory and swap together may at no time be less than memory, so what is raised is raised from
/// above and what is lowered is lowered from below.
fn memory(dir: &Path, limits: &Limits) -> io::Result<Vec<Write>> {
    super::limits::swap_alone(limits)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let unlimited = limits.memory.is_some_and(|memory| memory < 0);
    let can_swap = dir.join(MEMORY_AND_SWAP).exists();
    let both = limits.memory_swap.or_else(|| (unlimited && can_swap).then_some(-1));
    if both.is_some() && !can_swap {
        let why = "a limit on swap needs the kernel to account for it (swapaccount=1)";
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let now = file::number(&dir.join(MEMORY_AND_SWAP))?;
    let raises = both.is_some_and(|both| u64::try_from(both).map_or(true, |both| both > now));
    let one = |file, value: Option<i64>| value.map(|value| Write::new(dir, file, value.max(-1)));
    let memory = one(MEMORY, limits.memory);
    let both = one(MEMORY_AND_SWAP, both);
    let order = if raises { [both, memory] } else { [memory, both] };
    Ok(order.into_iter().flatten().collect())
}

/// Both what is used and, where the kernel has it, what is reserved.
fn hugepages(dir: &Path, limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    for (size, limit) in &limits.hugepages {
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        if dir.join(&reserved).exists() {
            writes.push(Write::new(dir, &reserved, limit));
        }
        writes.push(Write::new(dir, &format!("hugetlb.{size}.limit_in_bytes"), limit));
    }
    writes
}

/// Version 1 counts each group's own alone, so those below are added.
pub(super) fn oom_kills(group: &Cgroup) -> io::Result<u64> {
    let dirs: Vec<PathBuf> = match group.dir_of("memory") {
        Some(dir) => members::below(&dir)?,
        None => Vec::new(),
    };
    let mut kills = 0;
    for dir in dirs {
        let control = file::read(&dir.join("memory.oom_control"))?.unwrap_or_default();
        kills += file::field(&control, "oom_kill");
    }
    Ok(kills)
}

/// A frozen process does not die before it is thawed.
pub(super) fn thaw(group: &Cgroup) {
    for dir in group.dir_of("freezer").iter().flat_map(|dir| members::below(dir)).flatten() {
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
    }
}
