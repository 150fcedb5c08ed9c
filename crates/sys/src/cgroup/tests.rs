//! Cgroups against this machine's kernel, and against a directory that looks like cgroup2.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Child, Command, Stdio},
};

use super::*;

/// A cgroup of this test's own, killed and removed at its end.
struct Own(Cgroup);

impl Own {
    fn new(layout: &Layout, name: &str) -> Self {
        let path = format!("/podbay-test-{}-{name}/pod/container", std::process::id());
        Self(Cgroup::new(layout, Path::new(&path)).unwrap())
    }

    fn top(&self) -> Cgroup {
        let top = self.0.path.ancestors().nth(2).unwrap().to_owned();
        Cgroup { layout: self.0.layout.clone(), path: top }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.top().kill();
        let _ = self.top().remove();
    }
}

/// A real layout, or the reason why there is none to test with.
fn real(wanted: &str) -> Option<Layout> {
    let layout = Layout::detect().unwrap();
    let found = match &layout {
        Layout::V1 { .. } if wanted == "v1" => Some(layout),
        Layout::V2 { .. } if wanted == "v2" => Some(layout),
        // On a hybrid host the cgroup2 mount is a real one, though with few controllers.
        Layout::V1 { .. } if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() => {
            Some(Layout::V2 { root: "/sys/fs/cgroup/unified".into() })
        }
        _ => None,
    };
    let root = rustix::process::geteuid().is_root();
    if found.is_none() || !root {
        eprintln!("skipped: needs root and a mounted cgroup {wanted}");
    }
    found.filter(|_| root)
}

/// A shell that runs `script` once it is told to, by a line to its input.
fn waiting(script: &str) -> Child {
    let script = format!("read go; {script}");
    Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
}

fn tell(child: &mut Child) {
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
}

fn read(group: &Cgroup, controller: &str, file: &str) -> String {
    let path = group.dir_of(controller).unwrap().join(file);
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn only_an_absolute_path_below_the_root_names_a_cgroup() {
    let layout = Layout::V2 { root: "/x".into() };
    assert!(Cgroup::new(&layout, Path::new("/a/b")).is_ok());
    for bad in ["", "/", "a", "/a/../..", "/..", "//"] {
        let error = Cgroup::new(&layout, Path::new(bad)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad}");
    }
}

#[test]
fn a_v1_cgroup_is_made_limited_and_removed_in_every_hierarchy() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "limits");
    let group = &own.0;
    assert!(!group.exists());
    group.remove().unwrap();
    group.make().unwrap();
    group.make().unwrap();
    assert!(group.dirs().iter().all(|dir| dir.is_dir()));
    assert_ne!(read(group, "cpuset", "cpuset.cpus"), "");
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(200_000),
        cpuset_cpus: Some("0".into()),
        memory: Some(64 << 20),
        memory_swap: group.accounts_swap().then_some(64 << 20),
        pids: Some(10),
        ..Limits::default()
    };
    group.apply(&limits).unwrap();
    let raised = Limits { memory: Some(128 << 20), memory_swap: Some(128 << 20), ..limits.clone() };
    group
        .apply(&Limits { memory_swap: limits.memory_swap.and(raised.memory_swap), ..raised })
        .unwrap();
    group.apply(&limits).unwrap();
    assert_eq!(read(group, "cpu", "cpu.shares"), "512");
    assert_eq!(read(group, "cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(group, "cpu", "cpu.cfs_period_us"), "200000");
    assert_eq!(read(group, "memory", v1::MEMORY), (64 << 20).to_string());
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory_limit, stats.pids_limit), (64 << 20, 10));
    group.apply(&Limits { cpu_quota: Some(-1), memory: Some(-1), ..Limits::default() }).unwrap();
    assert_eq!(group.stats().unwrap().memory_limit, u64::MAX);
    group.remove().unwrap();
    assert!(!group.exists());
    group.remove().unwrap();
    let error = group.stats().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn limits_that_fail_half_way_leave_a_v1_cgroup_as_it_was() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "rollback");
    own.0.make().unwrap();
    let before = read(&own.0, "cpu", "cpu.shares");
    let limits =
        Limits { cpu_shares: Some(77), cpuset_cpus: Some("4095".into()), ..Limits::default() };
    assert!(own.0.apply(&limits).unwrap_err().to_string().contains("cpuset.cpus"));
    assert_eq!(read(&own.0, "cpu", "cpu.shares"), before);
}

#[test]
fn a_limit_without_its_controller_is_named_and_refused() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "lacking");
    own.0.make().unwrap();
    let unified = BTreeMap::from([("memory.high".to_owned(), "1".to_owned())]);
    let limits = Limits { cpu_shares: Some(77), unified, ..Limits::default() };
    assert_eq!(layout.unsupported(&limits).len(), 1);
    let error = own.0.apply(&limits).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("memory.high"), "{error}");
    assert_ne!(read(&own.0, "cpu", "cpu.shares"), "77");
}

#[test]
fn processes_of_a_v1_cgroup_are_counted_and_killed() {
    let Some(layout) = real("v1") else { return };
    members_are_counted_and_killed(&layout);
}

#[test]
fn processes_of_a_v2_cgroup_are_counted_and_killed() {
    let Some(layout) = real("v2") else { return };
    members_are_counted_and_killed(&layout);
}

/// Puts a child of ours into a cgroup.
fn put(group: &Cgroup, child: &Child) {
    for dir in group.dirs().iter().filter(|dir| dir.is_dir()) {
        file::write(&dir.join("cgroup.procs"), &child.id().to_string()).unwrap();
    }
}

fn members_are_counted_and_killed(layout: &Layout) {
    // On a hybrid host both kinds are there, and the removal of one looks after the other.
    let own = Own::new(layout, if layout.is_v2() { "members-v2" } else { "members-v1" });
    let group = &own.0;
    group.kill().unwrap();
    assert_eq!(group.join().unwrap_err().kind(), io::ErrorKind::NotFound);
    group.make().unwrap();
    let mut children = [waiting("true"), waiting("true")];
    for child in &children {
        put(group, child);
    }
    let mut ids = children.each_ref().map(Child::id);
    ids.sort_unstable();
    assert_eq!(group.pids().unwrap(), ids);
    assert_eq!(own.top().pids().unwrap(), ids, "those below count");
    let busy = group.remove().unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy, "{busy}");
    own.top().kill().unwrap();
    assert_eq!(group.pids().unwrap(), [0_u32; 0]);
    for child in &mut children {
        assert!(!child.wait().unwrap().success());
    }
    assert!(group.stats().unwrap().cpu_usage_ns > 0);
    own.top().remove().unwrap();
    assert!(!own.top().exists());
}

#[test]
fn processes_of_a_v2_cgroup_open_the_devices_that_its_rules_allow() {
    let Some(layout) = real("v2") else { return };
    let own = Own::new(&layout, "devices");
    own.0.make().unwrap();
    let rule = |allow, kind, minor| Device {
        allow,
        kind,
        major: Some(1),
        minor: Some(minor),
        access: "rw".to_owned(),
    };
    let rules = [rule(false, 'a', 0), rule(true, 'c', 3)];
    match own.0.rule_devices(&rules) {
        // On a hybrid host that is not asked of it.
        Err(error) if !Layout::detect().unwrap().is_v2() => {
            return eprintln!("skipped: this kernel takes no program: {error}");
        }
        ruled => ruled.unwrap(),
    }
    let mut child = waiting("true </dev/null || exit 1; true </dev/zero && exit 2; exit 0");
    put(&own.0, &child);
    tell(&mut child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_process_joins_a_v1_cgroup_where_it_is() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "partly");
    own.0.make().unwrap();
    fs::remove_dir(own.0.dir_of("pids").unwrap()).unwrap();
    let mut child = waiting("true");
    put(&own.0, &child);
    assert_eq!(read(&own.0, "memory", "cgroup.procs"), child.id().to_string());
    tell(&mut child);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_process_frozen_on_v1_is_killed_all_the_same() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "frozen");
    own.0.make().unwrap();
    let mut child = waiting("true");
    put(&own.0, &child);
    let state = own.0.dir_of("freezer").unwrap().join("freezer.state");
    fs::write(state, "FROZEN").unwrap();
    own.top().kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_process_killed_for_memory_is_counted_on_v1() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "oom");
    own.0.make().unwrap();
    let memory = Some(8 << 20);
    let memory_swap = memory.filter(|_| own.0.accounts_swap());
    own.0.apply(&Limits { memory, memory_swap, ..Limits::default() }).unwrap();
    let mut child = waiting("exec dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null");
    put(&own.0, &child);
    assert_eq!(own.0.oom_kills().unwrap(), 0);
    tell(&mut child);
    assert!(!child.wait().unwrap().success());
    assert_eq!(own.0.oom_kills().unwrap(), 1);
    assert_eq!(own.top().oom_kills().unwrap(), 1, "those below count");
    let stats = own.0.stats().unwrap();
    assert_eq!(stats.memory_max_usage, 8 << 20);
}

#[test]
fn hugepages_of_a_real_v2_cgroup_are_limited_if_the_host_has_them() {
    let Some(layout) = real("v2").filter(|layout| layout.has("hugetlb")) else {
        return eprintln!("skipped: needs cgroup2 with hugetlb");
    };
    let own = Own::new(&layout, "huge");
    own.0.make().unwrap();
    let size = own.0.stats().unwrap().hugepages.first().unwrap().size.clone();
    let hugepages = vec![(size.clone(), 4 << 30)];
    own.0.apply(&Limits { hugepages, ..Limits::default() }).unwrap();
    let file = format!("hugetlb.{size}.max");
    assert_eq!(read(&own.0, "hugetlb", &file), (4_u64 << 30).to_string());
}

/// A directory that looks like cgroup2, with the files of one cgroup in it.
fn fake(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids cpuset io\n").unwrap();
    fs::write(dir.path().join("cgroup.subtree_control"), "memory\n").unwrap();
    let group = Cgroup::new(&Layout::at(dir.path()).unwrap(), Path::new("/pod/one")).unwrap();
    group.make().unwrap();
    for (name, text) in files {
        fs::write(group.unified().join(name), text).unwrap();
    }
    (dir, group)
}

#[test]
fn controllers_are_handed_down_to_a_new_v2_cgroup() {
    let (dir, group) = fake(&[]);
    let down = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(down, "+cpu +pids +cpuset +io", "all but what was there");
    assert!(group.exists());
    group.remove().unwrap();
    assert!(!group.exists());
    assert!(dir.path().join("pod").exists(), "what is above is not ours to remove");
}

#[test]
fn swap_is_accounted_for_where_there_is_a_file_to_limit_it() {
    let (dir, group) = fake(&[]);
    let layout = Layout::at(dir.path()).unwrap();
    assert!(!layout.accounts_swap() && !group.accounts_swap());
    fs::write(dir.path().join("pod").join(v2::SWAP), "max").unwrap();
    assert!(layout.accounts_swap());
    if let Some(layout) = real("v1") {
        let own = Own::new(&layout, "swap");
        own.0.make().unwrap();
        assert_eq!(layout.accounts_swap(), own.0.accounts_swap());
    }
}

#[test]
fn v2_limits_are_written_in_its_own_words() {
    let names = ["cpu.weight", "memory.swap.max", "memory.max", "pids.max", "memory.high"];
    let files: Vec<_> = names.map(|name| (name, "max")).into();
    let (_dir, group) = fake(&[&files[..], &[("cpu.max", "max 100000\n")]].concat());
    let unified = BTreeMap::from([("memory.high".to_owned(), "5".to_owned())]);
    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_period: Some(50_000),
        memory: Some(100),
        memory_swap: Some(150),
        pids: Some(-1),
        unified,
        ..Limits::default()
    };
    group.apply(&limits).unwrap();
    let values = names.map(|name| read(&group, "cpu", name));
    assert_eq!(values, ["100", "50", "100", "max", "5"]);
    assert_eq!(read(&group, "cpu", "cpu.max"), "max 50000");
    group.apply(&Limits { cpu_quota: Some(9), cpu_period: Some(10), ..Limits::default() }).unwrap();
    assert_eq!(read(&group, "cpu", "cpu.max"), "9 10");
}

#[test]
fn a_v2_file_of_no_controller_is_never_written() {
    let (_dir, group) = fake(&[("cgroup.procs", "")]);
    for bad in ["cgroup.procs", "../cgroup.controllers", "memory/max", "hugetlb.2MB.max"] {
        let unified = BTreeMap::from([(bad.to_owned(), "1".to_owned())]);
        let error = group.apply(&Limits { unified, ..Limits::default() }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{bad}");
    }
}

#[test]
fn v2_stats_are_read_in_nanoseconds_and_bytes() {
    let pressure = "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 total=3\n";
    let (_dir, group) = fake(&[
        ("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\nthrottled_usec 1\n"),
        ("memory.current", "1000\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 300\nfile 600\ninactive_file 400\npgfault 5\npgmajfault 1\n"),
        ("memory.events", "low 0\nmax 6\noom 2\noom_kill 3\n"),
        ("memory.swap.current", "11\n"),
        ("pids.current", "2\n"),
        ("pids.max", "12\n"),
        ("memory.pressure", pressure),
    ]);
    let stats = group.stats().unwrap();
    assert_eq!((stats.cpu_usage_ns, stats.cpu_user_ns, stats.cpu_throttled_ns), (7000, 4000, 1000));
    assert_eq!((stats.memory_usage, stats.working_set, stats.rss), (1000, 600, 300));
    assert_eq!((stats.memory_limit, stats.swap_usage), (u64::MAX, 11));
    assert_eq!((stats.pids, stats.pids_limit), (2, 12));
    assert_eq!(group.oom_kills().unwrap(), 3);
    let memory = stats.memory_pressure.unwrap();
    assert_eq!((memory.some.avg10, memory.some.total_us, memory.full.total_us), (1.5, 7, 3));
    assert_eq!(stats.cpu_pressure, None);
}

#[test]
fn a_make_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("cpu"), dir.path().join("memory"));
    fs::create_dir(&good).unwrap();
    fs::create_dir(&bad).unwrap();
    fs::write(bad.join("pod"), "in the way").unwrap();
    let group = Cgroup::new(&Layout::at(dir.path()).unwrap(), Path::new("/pod/one")).unwrap();
    assert!(group.make().is_err());
    assert_eq!(fs::read_dir(&good).unwrap().count(), 0);
}

#[test]
fn limits_that_were_changed_can_be_put_back() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "undo");
    own.0.make().unwrap();
    let limits = |cpu_shares, memory| Limits {
        cpu_shares: Some(cpu_shares),
        memory: Some(memory),
        ..Limits::default()
    };
    own.0.apply(&limits(512, 64 << 20)).unwrap();
    let now =
        || (read(&own.0, "cpu", "cpu.shares"), read(&own.0, "memory", "memory.limit_in_bytes"));
    let before = now();
    let change = own.0.change(&limits(256, 32 << 20)).unwrap();
    assert_eq!(now(), ("256".to_owned(), (32 << 20).to_string()));
    change.undo();
    assert_eq!(now(), before);
}

#[test]
fn members_are_those_of_the_cgroup_and_of_those_below_it() {
    let Some(layout) = real("v1") else { return };
    let own = Own::new(&layout, "counted");
    own.0.make().unwrap();
    let mut child = waiting("true");
    for dir in own.0.dirs() {
        fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    assert_eq!(own.0.members().unwrap(), [child.id()]);
    assert_eq!(own.top().members().unwrap(), [child.id()]);
    tell(&mut child);
    child.wait().unwrap();
    assert_eq!(own.top().members().unwrap(), []);
}

#[test]
fn a_controller_that_is_not_handed_down_is_named_with_who_keeps_it() {
    let (dir, group) = fake(&[("cgroup.controllers", "cpu pids\n"), ("memory.max", "max")]);
    let limits = Limits { memory: Some(5), pids: Some(7), ..Limits::default() };
    let error = group.apply(&limits).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    let above = dir.path().join("pod/cgroup.subtree_control");
    assert!(error.to_string().contains("controller memory"), "{error}");
    assert!(error.to_string().contains(above.to_str().unwrap()), "{error}");
    assert_eq!(read(&group, "memory", "memory.max"), "max", "nothing was changed");
}

#[test]
fn a_kernel_without_pressure_tells_none() {
    let (_dir, group) = fake(&[("cpu.stat", "usage_usec 5\n")]);
    let stats = group.stats().unwrap();
    assert_eq!(stats.cpu_usage_ns, 5000);
    assert!(stats.cpu_pressure.is_none() && stats.memory_pressure.is_none());
}

#[test]
fn a_process_settles_below_a_v2_cgroup_that_another_made() {
    let Some(layout) = real("v2") else { return };
    let own = Own::new(&layout, "settle");
    let error = own.0.settle("hold", std::process::id()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "that one is not ours to make");
    own.0.make().unwrap();
    let mut child = waiting("exit 0");
    put(&own.0, &child);
    assert!(own.0.is_populated());
    own.0.settle("hold", child.id()).unwrap();
    assert_eq!(own.0.child("hold").members().unwrap(), [child.id()]);
    let path = Path::new("/").join(&own.0.path);
    let all = layout.named("container").unwrap();
    assert!(all.contains(&path), "{all:?}");
    tell(&mut child);
    child.wait().unwrap();
    assert!(own.0.exists() && !own.0.is_populated());
    assert!(!own.0.goes_within(std::time::Duration::ZERO));
    own.0.remove().unwrap();
    assert!(own.0.goes_within(std::time::Duration::ZERO));
}

#[test]
fn nothing_settles_in_a_tree_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpu\n").unwrap();
    fs::create_dir(dir.path().join("pod")).unwrap();
    // A tree without the kernel's files is as one that is read-only.
    let group = Cgroup::new(&Layout::at(dir.path()).unwrap(), Path::new("/pod")).unwrap();
    let error = group.settle("hold", 1).unwrap_err();
    assert!(error.to_string().contains("hold/cgroup.procs"), "{error}");
}

#[test]
fn who_joins_a_v2_cgroup_that_has_divided_itself_follows_a_member() {
    let Some(layout) = real("v2") else { return };
    let own = Own::new(&layout, "divided");
    own.0.make().unwrap();
    let has = fs::read_to_string(own.0.unified().join("cgroup.controllers")).unwrap();
    let Some(first) = has.split_whitespace().next() else {
        return eprintln!("skipped: this cgroup2 has no controllers");
    };
    let mut child = waiting("exit 0");
    own.0.settle("x", child.id()).unwrap();
    let down = own.0.unified().join("cgroup.subtree_control");
    file::write(&down, &format!("+{first}")).unwrap();
    assert_eq!(own.0.followed(child.id()), Some(own.0.child("x")));
    assert_eq!(own.0.followed(std::process::id()), None, "that is elsewhere");
    tell(&mut child);
    child.wait().unwrap();
}
