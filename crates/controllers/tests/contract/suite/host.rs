//! Where one test has its things, and what there is of them: everything bears its name, so that tests
//! can run side by side, and what a killed one leaves is removed by the next.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::{
    mount::UnmountFlags,
    process::{Pid, Signal, kill_process},
};
use sys::cgroup::{Cgroup, Layout};

/// Short, for the 107 bytes that the path of a socket may have.
const PARENT: &str = "/run";
const PREFIX: &str = "pbc-";

/// One test's part of the host.
pub struct Host {
    pub base: PathBuf,
    /// Below the root of each hierarchy.
    pub cgroup: PathBuf,
}

impl Host {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let host = Self::named(&name);
        for folder in ["shims", "pods", "netns"] {
            fs::create_dir_all(host.base.join(folder)).unwrap();
        }
        host
    }

    fn named(name: &str) -> Self {
        Self {
            base: Path::new(PARENT).join(format!("{PREFIX}{name}")),
            cgroup: format!("/podbay-contract-{name}").into(),
        }
    }

    pub fn group(path: &Path) -> Cgroup {
        Cgroup::new(&Layout::detect().unwrap(), path).unwrap()
    }

    /// The mounts below a folder.
    pub fn mounts(folder: &Path) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(folder)).collect()
    }

    /// The processes that were started for what is here, or live in its cgroups: pid and command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let base = format!("{}/", self.base.display());
        let group = self.cgroup.display().to_string();
        let look = |entry: fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
            let line = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ");
            let groups = String::from_utf8_lossy(&read("cgroup")?).into_owned();
            let ours = line.contains(&base)
                || groups
                    .lines()
                    .any(|line| line.split(':').nth(2).is_some_and(|it| below(it, &group)));
            let zombie = String::from_utf8_lossy(&read("stat")?).contains(") Z ");
            (ours && !zombie && pid.unsigned_abs() != std::process::id()).then_some((pid, line))
        };
        fs::read_dir("/proc").unwrap().flatten().filter_map(look).collect()
    }

    /// The cgroups at and below a path, in all hierarchies.
    pub fn groups(path: &Path) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let roots = table.lines().filter(|line| line.contains(" - cgroup"));
        let roots = roots.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut all = Vec::new();
        for root in roots {
            collect(&root.join(path.strip_prefix("/").unwrap()), &mut all);
        }
        all
    }

    /// Removes all by force.
    fn clear(&self) {
        super::scene::until("killed processes are gone", || {
            let left = self.processes();
            for (pid, _) in &left {
                let _ = kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
            }
            left.is_empty()
        });
        for mount in Self::mounts(&self.base).into_iter().rev() {
            let _ = rustix::mount::unmount(&mount, UnmountFlags::DETACH);
        }
        super::scene::until("cgroups are empty", || {
            Self::groups(&self.cgroup).iter().rev().all(|group| fs::remove_dir(group).is_ok())
        });
        let _ = fs::remove_dir_all(&self.base);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.clear();
    }
}

fn below(path: &str, group: &str) -> bool {
    Path::new(path).starts_with(group)
}

fn collect(dir: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    all.push(dir.to_owned());
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir())) {
        collect(&entry.path(), all);
    }
}

/// Removes what killed test runs have left.
fn sweep() {
    for entry in fs::read_dir(PARENT).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let pid = name.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            drop(Host::named(name));
        }
    }
}
