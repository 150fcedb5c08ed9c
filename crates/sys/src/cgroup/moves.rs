//! Moving processes between cgroups, and what the kernel makes one wait for.
//!
//! `cgroup.procs` moves whole processes, and so needs a lock that all forks and exits take too,
//! `cgroup_threadgroup_rwsem`. Its writers wait for an RCU grace period (6 to 10 ms), unless another
//! has been there within the last one (`rcu_sync`, Linux 4.5). A thread that moves itself, by writing
//! `0` to a file of threads, needs no such lock (`cgroup_procs_write_start`).

use std::{fs, io, path::PathBuf};

use super::{Cgroup, Layout, file};

/// Has the kernel begin now with what the next move would wait for: for when somebody else is about
/// to make one. Moves nothing, and blocks for as long. What goes wrong makes nothing but the move
/// slower.
pub fn expect(layout: &Layout) {
    if let Some(procs) = own_procs(layout) {
        let _ = fs::write(procs, "0");
    }
}

/// `cgroup.procs` of the cgroup that this process is in, in some hierarchy.
fn own_procs(layout: &Layout) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let dir = match layout {
        Layout::V2 { root } => root.join(below(path_in(&text, "")?)),
        Layout::V1 { .. } => layout.mount_of("memory")?.join(below(path_in(&text, "memory")?)),
    };
    Some(dir.join("cgroup.procs"))
}

fn below(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The path in this controller's hierarchy, by `/proc/<pid>/cgroup`; the empty one is cgroup2's.
pub fn path_in<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let found = parts.next()?.split(',').any(|name| name == controller);
        found.then(|| parts.next())?
    })
}

impl Cgroup {
    /// Puts this process, which must have one thread, into it, in each hierarchy that has it: a
    /// cgroup made by another may be in some only.
    ///
    /// # Errors
    /// `NotFound` if none has it; else of the kernel.
    pub fn join(&self) -> io::Result<()> {
        let mut dirs = self.dirs();
        dirs.retain(|dir| dir.is_dir());
        if dirs.is_empty() {
            return Err(self.missing());
        }
        // On v2 a thread may not leave its process's cgroup.
        let name = if self.layout.is_v2() { "cgroup.procs" } else { "tasks" };
        dirs.iter().try_for_each(|dir| file::write(&dir.join(name), "0"))
    }

    /// As [`Cgroup::join`], of the cgroup of a container. One that has handed controllers down on v2 can
    /// have no process of its own any more: then the one that `member` is in is joined, which is below it.
    ///
    /// # Errors
    /// As there.
    pub fn join_or_follow(&self, member: u32) -> io::Result<()> {
        match self.join() {
            Err(error) if self.layout.is_v2() && error.kind() == io::ErrorKind::ResourceBusy => {
                self.followed(member).ok_or(error)?.join()
            }
            joined => joined,
        }
    }

    pub(super) fn followed(&self, member: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{member}/cgroup")).ok()?;
        let path = PathBuf::from(below(path_in(&text, "")?));
        let layout = self.layout.clone();
        path.starts_with(&self.path).then_some(Self { layout, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_its_own_place_in_each_kind_of_hierarchy() {
        let hybrid = "5:cpu,cpuacct:/a\n4:memory:/a/b:c\n0::/u\n";
        assert_eq!(path_in(hybrid, "memory"), Some("/a/b:c"));
        assert_eq!(path_in(hybrid, ""), Some("/u"));
        assert_eq!(path_in(hybrid, "pids"), None);
        assert_eq!(path_in("0::/\n", ""), Some("/"));
    }

    #[test]
    fn to_expect_a_move_moves_nobody() {
        let Ok(layout) = Layout::detect() else { return };
        let before = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(own_procs(&layout).is_some_and(|procs| procs.exists()));
        expect(&layout);
        assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
    }
}
