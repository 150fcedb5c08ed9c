//! The leak oracle: everything that a daemon can leave on the host, looked at before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{Daemon, Place, clean, eventually_within, is_true, process, wait::seen_within};

/// How long what is removed may take to be gone: network namespaces, and the interfaces in them, are
/// dismantled by the kernel in its own time.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longer than the daemon's runtime keeps a thread for work that blocks when there is none: 10 s.
const IDLE: Duration = Duration::from_secs(11);

/// What there is of one daemon's pods on the host, by its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<&'static str, Things>);

/// Things by what tells one from another, and what else there is to say of each.
type Things = BTreeMap<String, String>;

impl Snapshot {
    /// What is in one and not in the other, in words.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let only = |one: &Self, other: &Self, what: &str| -> Vec<String> {
            let of = |(kind, things): (&&'static str, &Things)| {
                let others = other.of(kind);
                let only = things.iter().filter(|(key, _)| !others.contains_key(*key));
                only.map(|(key, more)| format!("{kind} {what}: {key} {more}")).collect::<Vec<_>>()
            };
            one.0.iter().flat_map(of).collect()
        };
        [only(later, self, "left behind"), only(self, later, "gone")].concat()
    }

    /// Whether there is none of this kind.
    pub fn has_no(&self, kind: &str) -> bool {
        self.of(kind).is_empty()
    }

    fn of(&self, kind: &str) -> &Things {
        self.0.get(kind).expect("a kind of thing that is looked at")
    }

    fn take(place: &Place, daemon: Option<i32>) -> Self {
        Self(BTreeMap::from([
            ("process", processes(place, daemon)),
            ("mount", plain(mounts(place))),
            ("cgroup", plain(cgroups(place))),
            ("link", plain(links(place))),
            ("rule", plain(rules(place))),
            ("file", plain(files(place))),
        ]))
    }
}

/// What the daemon and its shims hold for themselves, by process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<String, Counts>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    descriptors: usize,
    threads: usize,
}

impl Held {
    /// How many processes they are.
    pub fn processes(&self) -> usize {
        self.0.len()
    }

    /// What there is more of, in words.
    fn beyond(&self, before: &Self) -> Vec<String> {
        let more = |(name, now): (&String, &Counts)| {
            let then = before.0.get(name).copied().unwrap_or(Counts { descriptors: 0, threads: 0 });
            let has_more = now.descriptors > then.descriptors || now.threads > then.threads;
            has_more.then(|| format!("{name}: {now:?}, and before {then:?}"))
        };
        self.0.iter().filter_map(more).collect()
    }
}

impl Daemon {
    /// Descriptors and threads of the daemon and of its shims.
    pub fn held(&self) -> Held {
        let ours = |it: &process::Process| {
            // Its program is on a mount that nobody sees.
            let is_shim = called(it).ends_with("/podbay-shim") && it.belongs_to(&self.place);
            self.pid() == Some(it.pid) || is_shim
        };
        let counts = |pid: i32| Counts {
            descriptors: entries(&format!("/proc/{pid}/fd")),
            threads: entries(&format!("/proc/{pid}/task")),
        };
        let all = process::all().into_iter().filter(ours);
        let name = |it: &process::Process| format!("{} {}", called(it), it.pid);
        Held(all.map(|it| (name(&it), counts(it.pid))).collect())
    }

    /// The same, once nothing has changed for longer than a thread is kept that does nothing.
    ///
    /// # Panics
    /// It goes on changing.
    pub async fn held_at_rest(&self) -> Held {
        let (mut last, mut since) = (self.held(), Instant::now());
        eventually_within(4 * IDLE, "the daemon comes to rest", async || {
            let now = self.held();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > IDLE).then(|| last.clone())
        })
        .await
    }

    /// Asserts that nothing is held that was not held before, once idle threads have gone.
    ///
    /// # Panics
    /// It is, and stays so.
    pub async fn assert_holds_no_more(&self, before: &Held, after: &str) {
        let mut more = Vec::new();
        let same = seen_within(3 * IDLE, async || {
            more = self.held().beyond(before);
            is_true(more.is_empty())
        });
        if same.await.is_none() {
            panic!("after {after} more is held:\n  {}", more.join("\n  "));
        }
    }

    /// All that there is of its pods on the host.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.place, self.pid())
    }

    /// The same, once a pod has come and gone: what the first one makes for all stays.
    ///
    /// # Panics
    /// Not even that works.
    pub async fn warm_snapshot(&self) -> Snapshot {
        let cri = self.cri();
        let pod = cri.run_pod(&self.pod("warm-up")).await.expect("a pod can be run");
        self.come_and_go(&pod).await;
        cri.stop_pod(&pod).await.expect("it can be stopped");
        cri.remove_pod(&pod).await.expect("it can be removed");
        self.settled_snapshot().await
    }

    /// The same, once it has stopped changing and there are no processes: the kernel takes down the
    /// links of a pod that was removed in its own time, and they are no part of what was before.
    ///
    /// # Panics
    /// It goes on changing.
    pub async fn settled_snapshot(&self) -> Snapshot {
        let mut last = self.snapshot();
        eventually_within(PATIENCE, "the host settles", async || {
            let now = self.snapshot();
            let same = last == now && now.has_no("process");
            last = now;
            is_true(same)
        })
        .await;
        last
    }

    /// The same, once a container has come and gone in this pod: what a pod's first one makes for all
    /// stays with the pod.
    ///
    /// # Panics
    /// Not even that works.
    pub async fn snapshot_after_the_first_of(&self, pod: &str) -> Snapshot {
        self.come_and_go(pod).await;
        self.snapshot()
    }

    async fn come_and_go(&self, pod: &str) {
        let cri = self.cri();
        let ran = cri.launch(pod, &crate::container("warm-up", &["true"])).await;
        let ran = ran.expect("a container can be run");
        assert_eq!(cri.ended(&ran).await.expect("it has a status").exit_code, 0);
        cri.remove(&ran).await.expect("it can be removed");
    }

    /// Asserts that the host is as it was.
    ///
    /// # Panics
    /// It is not, and stays so.
    pub async fn assert_untouched(&self, before: &Snapshot, after: &str) {
        let mut difference = Vec::new();
        let same = seen_within(PATIENCE, async || {
            difference = before.difference(&self.snapshot());
            is_true(difference.is_empty())
        });
        if same.await.is_none() {
            panic!("{after} has touched the host:\n  {}", difference.join("\n  "));
        }
    }

    /// How many descriptors the daemon has open.
    pub fn descriptors(&self) -> usize {
        entries(&format!("/proc/{}/fd", self.pid().unwrap_or_default()))
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        entries(&format!("/proc/{}/task", self.pid().unwrap_or_default()))
    }
}

/// What it was started as.
fn called(process: &process::Process) -> &str {
    process.line.split(' ').next().unwrap_or_default()
}

fn entries(dir: &str) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn plain(names: BTreeSet<String>) -> Things {
    names.into_iter().map(|name| (name, String::new())).collect()
}

/// Those that name the place, are in its cgroups, or are children of the daemon: a zombie of its own
/// too. Zombies of PID 1 are its to bury, and children of the test are the test's.
fn processes(place: &Place, daemon: Option<i32>) -> Things {
    let own = |it: &process::Process| it.belongs_to(place) || daemon == Some(it.parent);
    let test = i32::try_from(std::process::id()).ok();
    let all = process::all().into_iter();
    let all = all.filter(|it| Some(it.parent) != test && own(it) && !(it.zombie && it.parent == 1));
    let shown = |it: process::Process| match it.zombie {
        true => (it.pid.to_string(), format!("(a zombie of {})", it.parent)),
        false => (it.pid.to_string(), it.line),
    };
    all.map(shown).collect()
}

/// Those below the place, and those anywhere that are made of what is below it.
fn mounts(place: &Place) -> BTreeSet<String> {
    let base = format!("{}/", place.base.display());
    let all = clean::mounts().into_iter().filter(|mount| mount.line.contains(&base));
    all.map(|mount| format!("{} {}", mount.kind, mount.point.display())).collect()
}

/// Those below the one that all of its pods are in.
fn cgroups(place: &Place) -> BTreeSet<String> {
    let name = place.cgroup();
    let mut all = clean::cgroups(place);
    all.retain(|path| !path.ends_with(&name));
    all.iter().map(|path| path.display().to_string()).collect()
}

/// The ports of its bridges, and links of podbay that are tied to nothing, of whichever daemon.
fn links(place: &Place) -> BTreeSet<String> {
    let ports = [place.bridge(), place.cni_bridge()].map(|bridge| clean::ports(&bridge));
    let loose = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let loose = loose.filter(|entry| !entry.path().join("master").exists());
    let loose = loose.filter_map(|entry| entry.file_name().into_string().ok());
    ports.into_iter().flatten().chain(loose.filter(|name| is_of_a_pod(name))).collect()
}

/// `pb` and the thirteen first digits of a pod's id.
fn is_of_a_pod(name: &str) -> bool {
    let digits = name.strip_prefix("pb").unwrap_or_default();
    digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What its table leads by name to pods.
fn rules(place: &Place) -> BTreeSet<String> {
    let table = format!("podbay-{}", place.bridge());
    let listed = Command::new("nft").args(["--json", "list", "table", "inet", &table]).output();
    let text = listed.map(|output| output.stdout).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let mut rules = BTreeSet::new();
    for item in json["nftables"].as_array().into_iter().flatten() {
        for set in [&item["map"], &item["set"]] {
            for element in set["elem"].as_array().into_iter().flatten() {
                rules.insert(format!("{}: {element}", set["name"]));
            }
        }
    }
    rules
}

/// Those that the daemon keeps, but for what is meant to outlast pods: its records, its images, and
/// what is locked.
fn files(place: &Place) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let sandboxer = ["root", "state"].map(|name| place.sandboxer().join(name));
    let daemon = [place.root(), place.state(), place.cni_cache(), place.ipam()];
    for dir in daemon.into_iter().chain(sandboxer) {
        collect(&dir, &mut all);
    }
    all.retain(|path| {
        let kept =
            ["/records.", "/images/layers/", "/images/images/", "/last_reserved_ip", "/lock"];
        !kept.iter().any(|part| path.contains(part))
    });
    all
}

fn collect(dir: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        all.insert(path.display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, all);
        }
    }
}
