//! What `/proc` tells: CPU time of the node, and which processes are there and what memory they
//! have. Reading only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// CPU time that the whole node has spent since it was started, in seconds: everything but idling
/// and waiting for disks.
pub fn node_cpu_seconds() -> Result<f64, Error> {
    let ticks = busy_ticks(&read(Path::new("/proc/stat"))?);
    Ok(ticks / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)))
}

/// user, nice, system, irq, softirq and steal of the first line of /proc/stat. What guests use is
/// part of user already.
fn busy_ticks(stat: &str) -> f64 {
    let all = stat.lines().next().unwrap_or_default();
    let ticks = |at: usize| -> f64 {
        all.split_ascii_whitespace().nth(at + 1).and_then(|t| t.parse().ok()).unwrap_or(0.0)
    };
    [0, 1, 2, 5, 6, 7].into_iter().map(ticks).sum()
}

/// Memory that could be had without swapping, in KiB.
pub fn available_kib() -> Result<f64, Error> {
    Ok(field_kib(&read(Path::new("/proc/meminfo"))?, "MemAvailable:"))
}

/// A line `name  123 kB`; 0 when there is none.
fn field_kib(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// What is its own, and its share of what it shares.
    pub pss: f64,
    /// What is its own.
    pub private: f64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Memory, Error> {
        let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
        Ok(Memory::parse(&read(&path)?))
    }

    fn parse(rollup: &str) -> Memory {
        let private = ["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"];
        Memory {
            pss: field_kib(rollup, "Pss:"),
            private: private.iter().map(|name| field_kib(rollup, name)).sum(),
        }
    }
}

/// Which processes there are, by pid.
#[derive(Clone, Debug, PartialEq)]
pub struct Processes(BTreeMap<u32, Process>);

#[derive(Clone, Debug, PartialEq)]
struct Process {
    parent: u32,
    /// In ticks since the kernel started. A pid alone may be used again.
    start: u64,
    name: String,
    command_line: Vec<String>,
}

impl Processes {
    /// All but kernel threads and the dead, which have no command line.
    pub fn now() -> Result<Processes, Error> {
        let place = Path::new("/proc");
        let failed = |source| Error::Proc { path: place.to_owned(), source };
        let pids = fs::read_dir(place)
            .map_err(failed)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(Processes(pids.filter_map(look_at).collect()))
    }

    /// Those that were not there then, and that the daemon may have started: their first ancestor
    /// that was there is the daemon, or one that takes in its orphans. All that were not there,
    /// when the daemon is not known.
    pub fn started_since(&self, then: &Processes, daemon: Option<u32>) -> Processes {
        let keepers: Option<BTreeSet<u32>> = daemon.map(|pid| self.with_ancestors(pid));
        let ours = |pid: u32| match (self.first_known(pid, then), &keepers) {
            (Some(known), Some(keepers)) => known != pid && keepers.contains(&known),
            (Some(known), None) => known != pid,
            (None, _) => false,
        };
        Processes(self.0.clone().into_iter().filter(|(pid, _)| ours(*pid)).collect())
    }

    /// The process, or the nearest of its ancestors, that was there then.
    fn first_known(&self, mut pid: u32, then: &Processes) -> Option<u32> {
        loop {
            let process = self.0.get(&pid)?;
            match then.0.get(&pid) {
                Some(known) if known.start == process.start => return Some(pid),
                _ => pid = process.parent,
            }
        }
    }

    fn with_ancestors(&self, mut pid: u32) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        while all.insert(pid) {
            match self.0.get(&pid) {
                Some(process) => pid = process.parent,
                None => break,
            }
        }
        all
    }

    /// Those that are such, by name and command line.
    pub fn only(mut self, such: impl Fn(&str, &[String]) -> bool) -> Processes {
        self.0.retain(|_, process| such(&process.name, &process.command_line));
        self
    }

    /// Memory of all. One that has ended meanwhile has none.
    pub fn memory(&self) -> Memory {
        self.0.keys().filter_map(|pid| Memory::of(*pid).ok()).fold(Memory::default(), |sum, one| {
            Memory { pss: sum.pss + one.pss, private: sum.private + one.private }
        })
    }

    /// How many of each name.
    pub fn names(&self) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for process in self.0.values() {
            *names.entry(process.name.clone()).or_default() += 1;
        }
        names
    }
}

/// None for one that is gone, dead, or a thread of the kernel.
fn look_at(pid: u32) -> Option<(u32, Process)> {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|l| !l.is_empty())?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some((pid, parse_stat(&stat, words(&command_line))?))
}

/// The words of a command line, which are ended by zeros.
fn words(command_line: &[u8]) -> Vec<String> {
    let line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

/// Fields 2, 4 and 22 of /proc/PID/stat. The name may hold spaces and brackets; the last bracket
/// ends it.
fn parse_stat(stat: &str, command_line: Vec<String>) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
    let (parent, start) = (field(4)?.parse().ok()?, field(22)?.parse().ok()?);
    Some(Process { parent, start, name: name.to_owned(), command_line })
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Proc { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waiting_and_idling_are_not_work() {
        let stat = "cpu  10 20 30 4000 5000 60 70 80 90 100\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), 270.0);
    }

    #[test]
    fn memory_is_read_from_a_rollup() {
        let rollup = "00400000-7ffe ---p 00000000 00:00 0    [rollup]\nRss:  900 kB\nPss:  321 kB\n\
                      Pss_Dirty:  1 kB\nPrivate_Clean:  20 kB\nPrivate_Dirty:  100 kB\n";
        assert_eq!(Memory::parse(rollup), Memory { pss: 321.0, private: 120.0 });
    }

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let stat = "42 (a) S (b)) S 7 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n";
        let process = parse_stat(stat, Vec::new()).expect("it is a line of the kernel");
        assert_eq!((&*process.name, process.parent, process.start), ("a) S (b)", 7, 777));
    }

    #[test]
    fn we_ourselves_are_among_the_processes_and_have_memory() {
        let all = Processes::now().expect("/proc can be read");
        let ours = all.clone().only(|_, line| line[0].contains("podbay_bench"));
        assert!(ours.0.contains_key(&std::process::id()) && ours.0.len() < all.0.len());
        assert!(ours.memory().pss > 0.0);
        assert!(node_cpu_seconds().expect("/proc/stat can be read") > 0.0);
    }

    /// Processes of (pid, parent, start).
    fn tree(processes: &[(u32, u32, u64)]) -> Processes {
        let process = |&(pid, parent, start)| {
            (pid, Process { parent, start, name: format!("p{pid}"), command_line: Vec::new() })
        };
        Processes(processes.iter().map(process).collect())
    }

    #[test]
    fn only_what_the_daemon_started_since_is_its_own() {
        let then = tree(&[(1, 0, 0), (10, 1, 1), (20, 1, 1), (30, 10, 1)]);
        let mut now = then.clone();
        // A child of the daemon and a child of that; an orphan that init took in; another shell's
        // child; a pid that is used again, by a child of the daemon.
        let new = tree(&[(11, 10, 5), (12, 11, 5), (13, 1, 5), (21, 20, 5), (30, 10, 6)]);
        now.0.extend(new.0);
        let pids = |of: Processes| of.0.into_keys().collect::<Vec<_>>();
        assert_eq!(pids(now.started_since(&then, Some(10))), [11, 12, 13, 30]);
        assert_eq!(pids(now.started_since(&then, None)), [11, 12, 13, 21, 30]);
        assert_eq!(pids(then.started_since(&then, Some(10))), [0; 0]);
    }

    proptest! {
        #[test]
        fn no_text_of_the_kernel_makes_us_panic(text in ".{0,200}") {
            busy_ticks(&text);
            Memory::parse(&text);
            parse_stat(&text, Vec::new());
            words(text.as_bytes());
        }
    }
}
