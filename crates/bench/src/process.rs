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

impl std::ops::Add for Memory {
    type Output = Memory;

    fn add(self, other: Memory) -> Memory {
        Memory { pss: self.pss + other.pss, private: self.private + other.private }
    }
}

impl std::ops::Sub for Memory {
    type Output = Memory;

    fn sub(self, other: Memory) -> Memory {
        Memory { pss: self.pss - other.pss, private: self.private - other.private }
    }
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

/// By what the processes of a runtime can be told from others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// The process that listens, where it can be known.
    pub daemon: Option<u32>,
    /// Where it keeps its own things, if it tells.
    pub folders: Vec<PathBuf>,
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

    /// Those that were not there then, and that the daemon or one of its supervisors may have
    /// started. Their first ancestor that was there is one of these; or it takes in the daemon's
    /// orphans, and what they do tells that they are its own, if the runtime can be known by that.
    /// Who has no daemon that is known may have started all.
    pub fn started_since(
        &self,
        then: &Processes,
        runtime: &Marks,
        supervisors: &Processes,
    ) -> Processes {
        let adopters = runtime.daemon.map(|pid| self.with_ancestors(pid));
        let ours = |pid: u32| {
            let Some((new, known)) = self.line_since(pid, then) else { return false };
            let child = runtime.daemon == Some(known) || supervisors.0.contains_key(&known);
            let orphan = adopters.as_ref().is_none_or(|adopters| adopters.contains(&known));
            let told = || runtime.folders.is_empty() || new.iter().any(|p| runtime.is_named_by(p));
            !new.is_empty() && (child || (orphan && told()))
        };
        Processes(self.0.clone().into_iter().filter(|(pid, _)| ours(*pid)).collect())
    }

    /// The process and its ancestors as far as they were not there then, and the first that was.
    fn line_since(&self, mut pid: u32, then: &Processes) -> Option<(Vec<&Process>, u32)> {
        let mut new = Vec::new();
        loop {
            let process = self.0.get(&pid)?;
            if then.0.get(&pid).is_some_and(|known| known.start == process.start) {
                return Some((new, pid));
            }
            new.push(process);
            pid = process.parent;
        }
    }

    /// Those that were there then.
    pub fn known_since(&self, then: &Processes) -> Processes {
        let known = |pid, process: &Process| {
            then.0.get(&pid).is_some_and(|known: &Process| known.start == process.start)
        };
        Processes(self.0.clone().into_iter().filter(|(pid, p)| known(*pid, p)).collect())
    }

    /// Those that serve the runtime: they descend from its daemon, or their command line names
    /// something of it, as that of a supervisor that was left behind when the daemon was started
    /// anew. Not the daemon itself.
    pub fn serving(&self, runtime: &Marks) -> Processes {
        let daemon = runtime.daemon;
        let descends =
            |pid| daemon.is_some_and(|daemon| self.with_ancestors(pid).contains(&daemon));
        let serves = |pid: u32, process: &Process| {
            daemon != Some(pid) && (descends(pid) || runtime.is_named_by(process))
        };
        Processes(self.0.clone().into_iter().filter(|(pid, p)| serves(*pid, p)).collect())
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

    /// Memory of each. One that has ended meanwhile has none.
    pub fn memory(&self) -> BTreeMap<u32, Memory> {
        self.0.keys().filter_map(|pid| Some((*pid, Memory::of(*pid).ok()?))).collect()
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

impl Marks {
    /// Below one of the folders: the folder itself is not enough.
    fn is_named_by(&self, process: &Process) -> bool {
        let inside = |path: &str| {
            let path = Path::new(path);
            self.folders.iter().any(|folder| path.starts_with(folder) && path != folder)
        };
        // `--flag=path` as well as the path alone.
        let value = |word: &str| word.split_once('=').is_some_and(|(_, value)| inside(value));
        process.command_line.iter().any(|word| inside(word) || value(word))
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
        assert!(ours.memory()[&std::process::id()].pss > 0.0);
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
        let none = tree(&[]);
        assert_eq!(pids(now.started_since(&then, &marks(Some(10), &[]), &none)), [11, 12, 13, 30]);
        assert_eq!(pids(now.started_since(&then, &marks(None, &[]), &none)), [11, 12, 13, 21, 30]);
        assert_eq!(pids(then.started_since(&then, &marks(Some(10), &[]), &none)), [0; 0]);
    }

    #[test]
    fn an_orphan_is_the_daemons_only_if_it_names_a_folder_of_one_that_has_some() {
        let then = tree(&[(1, 0, 0), (10, 1, 1)]);
        let mut now = then.clone();
        // A child; a shim that was left behind, and its child; one of another runtime, and its.
        now.0.extend(tree(&[(11, 10, 5), (21, 20, 5), (31, 30, 5)]).0);
        now.0.extend([(20, told(1, "shim --dir /run/a/x")), (30, told(1, "shim --dir /run/b/x"))]);
        let started = |marks: Marks| pids(now.started_since(&then, &marks, &tree(&[])));
        assert_eq!(started(marks(Some(10), &["/run/a"])), [11, 20, 21]);
        assert_eq!(started(marks(Some(10), &[])), [11, 20, 21, 30, 31]);
        assert_eq!(started(marks(None, &["/run/a"])), [20, 21]);
    }

    fn marks(daemon: Option<u32>, folders: &[&str]) -> Marks {
        Marks { daemon, folders: folders.iter().map(PathBuf::from).collect() }
    }

    /// A child of this parent, with a command line.
    fn told(parent: u32, line: &str) -> Process {
        let command_line = line.split(' ').map(str::to_owned).collect();
        Process { parent, start: 9, name: "p".to_owned(), command_line }
    }

    fn pids(of: Processes) -> Vec<u32> {
        of.0.into_keys().collect()
    }

    #[test]
    fn what_a_supervisor_from_before_starts_is_the_daemons_as_well() {
        let then = tree(&[(1, 0, 0), (10, 1, 1), (20, 10, 2), (30, 1, 2)]);
        let mut now = then.clone();
        now.0.extend(tree(&[(21, 20, 5), (31, 30, 5)]).0);
        let standing = tree(&[(20, 10, 2)]);
        assert_eq!(pids(now.started_since(&then, &marks(Some(10), &[]), &standing)), [21]);
    }

    #[test]
    fn what_was_there_before_is_known_by_when_it_started() {
        let then = tree(&[(1, 0, 0), (10, 1, 1), (30, 10, 1)]);
        let now = tree(&[(1, 0, 0), (10, 1, 1), (11, 10, 5), (30, 10, 6)]);
        assert_eq!(pids(now.known_since(&then)), [1, 10]);
    }

    #[test]
    fn only_descendants_of_the_daemon_and_what_names_its_things_serve_it() {
        let mut all = tree(&[(1, 0, 0), (10, 1, 1), (11, 10, 2), (12, 11, 3)]);
        // Left behind by an earlier daemon; with a flag; of another runtime, twice; not of a folder
        // but about it.
        let lines = ["shim --dir /run/a/pods/x", "shim --dir=/run/a/pods/y", "shim --dir /run/b/x"];
        let more = ["shim --dir /run/ab/x", "du /run/a"];
        for (pid, line) in (20..).zip(lines.into_iter().chain(more)) {
            all.0.insert(pid, told(1, line));
        }
        assert_eq!(pids(all.serving(&marks(Some(10), &["/run/a"]))), [11, 12, 20, 21]);
        assert_eq!(pids(all.serving(&marks(Some(10), &[]))), [11, 12]);
        assert_eq!(pids(all.serving(&marks(None, &["/run/a"]))), [20, 21]);
        assert_eq!(pids(all.serving(&marks(None, &[]))), [0; 0]);
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
