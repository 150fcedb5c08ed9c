//! The processes of a cgroup and of those below it: who they are, their end, and the end of the
//! cgroup itself.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::Timespec,
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{Cgroup, Layout, file, v1};

/// How long a killed process may take to go, and a left cgroup to become removable.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cgroup {
    /// The processes in it and below it, in order, from all its hierarchies. Those of a pid
    /// namespace that we cannot see into are left out. None if it is not there.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        pids_below(&self.dirs())
    }

    /// The same, from one hierarchy alone: for counting, where nobody need be found at any price.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        let one = self.dir_of("pids").or_else(|| self.dirs().into_iter().next());
        pids_below(one.as_slice())
    }

    /// Kills every process in it and below it, and returns when they are gone.
    ///
    /// # Errors
    /// `TimedOut` if any is left after two seconds, as one that waits for a dead disk is.
    pub fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let at_once = matches!(self.layout, Layout::V2 { .. })
            && file::write(&self.unified().join("cgroup.kill"), "1").is_ok();
        self.thaw();
        for tried in 0.. {
            let left = if at_once { self.pids()? } else { self.kill_once()? };
            if left.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                let why = format!("processes {left:?} do not die, in cgroup {:?}", self.path);
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            pause(tried);
        }
        Ok(())
    }

    /// Lets frozen processes go on, so that signals reach them. What is not frozen, or not there, is
    /// left as it is.
    pub fn thaw(&self) {
        match self.layout {
            Layout::V1 { .. } => v1::thaw(self),
            Layout::V2 { .. } => {
                let _ = fs::write(self.unified().join("cgroup.freeze"), "0");
            }
        }
    }

    /// Kills each process once, and tells who they were. A pid is signalled only if it was seen
    /// in the cgroup after we held its process: a pid that was reused meanwhile is left alone.
    fn kill_once(&self) -> io::Result<Vec<u32>> {
        let held: Vec<(u32, OwnedFd)> =
            self.pids()?.into_iter().filter_map(|pid| Some((pid, hold(pid)?))).collect();
        let still = self.pids()?;
        for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            // It may have died by itself; whether it is gone is looked at again.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        Ok(still)
    }

    /// Removes it and those below it, from all hierarchies. Content if it is not there. Kills
    /// nothing.
    ///
    /// # Errors
    /// `ResourceBusy` if, for two seconds, there are processes in it.
    pub fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut dirs = self.dirs();
        dirs.extend(self.layout.beside().map(|root| root.join(&self.path)));
        for tried in 0.. {
            let Err(error) = dirs.iter().try_for_each(|root| remove_below(root)) else {
                break;
            };
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() >= deadline {
                return Err(error);
            }
            pause(tried);
        }
        Ok(())
    }
}

fn pids_below(roots: &[PathBuf]) -> io::Result<Vec<u32>> {
    let mut pids = BTreeSet::new();
    for root in roots {
        for dir in below(root)? {
            let procs = file::read(&dir.join("cgroup.procs"))?.unwrap_or_default();
            pids.extend(procs.lines().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    pids.remove(&0);
    Ok(pids.into_iter().collect())
}

fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The directory and all below it, each after those below it. None if it is not there.
pub(super) fn below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut unseen = vec![root.to_owned()];
    while let Some(dir) = unseen.pop() {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(file::at("listing", &dir, error)),
        };
        let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        unseen.extend(dirs.map(|entry| entry.path()));
        found.push(dir);
    }
    found.reverse();
    Ok(found)
}

fn remove_below(root: &Path) -> io::Result<()> {
    for dir in below(root)? {
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file::at("removing", &dir, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Waits before the next look, longer each time: 1 ms, 2 ms, and so on to 20 ms. Version 1 has no
/// event for a cgroup that becomes empty.
pub(super) fn pause(tried: i64) {
    let time = Timespec { tv_sec: 0, tv_nsec: (tried + 1).min(20) * 1_000_000 };
    match rustix::event::poll(&mut [], Some(&time)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => unreachable!("poll of nothing failed: {error}"),
    }
}
