//! The processes of this host.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Place;

/// One process, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub zombie: bool,
    /// Its arguments, each followed by a space.
    pub line: String,
    pub exe: PathBuf,
    /// `/proc/<pid>/cgroup`
    pub cgroups: String,
}

impl Process {
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Self {
            pid,
            parent,
            zombie: matches!(state, "Z" | "X"),
            line: String::from_utf8_lossy(&line).replace('\0', " "),
            exe: fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default(),
            cgroups: fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default(),
        })
    }

    /// Whether it was started for what is at the place, or lives in its cgroups.
    pub(crate) fn belongs_to(&self, place: &Place) -> bool {
        let group = format!("/{}", place.cgroup());
        let in_group = |line: &str| {
            line.split(':').nth(2).is_some_and(|path| Path::new(path).starts_with(&group))
        };
        self.line.contains(&format!("{}/", place.base.display()))
            || self.exe.starts_with(&place.base)
            || self.cgroups.lines().any(in_group)
    }

    /// Kills it, if it is there.
    pub fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// All of them.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::of).collect()
}
