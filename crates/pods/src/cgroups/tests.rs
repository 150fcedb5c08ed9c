//! Both drivers, without a systemd: what they name and refuse, and what is left where there is no bus.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use names::Class;

use super::*;

/// A directory that looks like cgroup2, a bus that is not there, and a holder that is a shell.
struct Place {
    dir: tempfile::TempDir,
    cgroups: Cgroups,
}

fn at(driver: Driver, bus: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
    let holder = dir.path().join("holder");
    fs::write(&holder, "#!/bin/sh\nread -r word\n[ -n \"$word\" ] && exec sleep 1000\n").unwrap();
    fs::set_permissions(&holder, fs::Permissions::from_mode(0o755)).unwrap();
    let address = format!("unix:path={}", dir.path().join(bus).display());
    let cgroups = Cgroups::new(Settings {
        driver,
        layout: Layout::at(dir.path()).unwrap(),
        parent: "podbay".into(),
        systemd: Systemd::at(address, Duration::from_millis(300)),
        holder,
    });
    Place { dir, cgroups: cgroups.unwrap() }
}

fn pod(n: u8) -> PodId {
    PodId::from_bytes([n; 32])
}

fn group(place: &Place, pod: &PodId) -> Group {
    let driver = place.cgroups.by(place.cgroups.driver());
    Group {
        pod: pod.clone(),
        name: "a/b".into(),
        path: driver.place(pod, None).unwrap(),
        owned: true,
        limits: Limits { pids: Some(7), ..Limits::default() },
    }
}

/// Whether a process has this in its command line.
fn runs(word: &str) -> bool {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    all.map(line).any(|line| String::from_utf8_lossy(&line).contains(word))
}

#[test]
fn a_pod_is_in_the_slice_that_is_named_or_in_ours() {
    let place = at(Driver::Systemd, "none");
    let scopes = place.cgroups.by(Driver::Systemd);
    let (id, of) = (pod(7), |parent| scopes.place(&pod(7), Some(Path::new(parent))));
    let last = format!("podbay-{id}.scope");
    assert_eq!(scopes.place(&id, None).unwrap(), Path::new("/podbay.slice").join(&last));
    let slice = Path::new("/a.slice/a-b.slice");
    assert_eq!(of("a-b.slice").unwrap(), slice.join(&last));
    assert_eq!(of("/a.slice/a-b.slice").unwrap(), slice.join(&last));
    assert_eq!(of("-.slice").unwrap(), Path::new("/").join(&last));
}

#[test]
fn a_parent_of_the_other_driver_is_refused_with_its_field_and_what_to_do() {
    let place = at(Driver::Systemd, "none");
    for (driver, parent) in [(Driver::Systemd, "/kubepods/podx"), (Driver::Cgroupfs, "a-b.slice")] {
        let refused = place.cgroups.by(driver).place(&pod(7), Some(Path::new(parent)));
        let error = refused.unwrap_err();
        assert_eq!(error.class(), Class::InvalidArgument);
        let text = error.to_string();
        assert!(text.starts_with("config.linux.cgroup_parent: "), "{text}");
        assert!(text.contains(parent) && text.contains("cgroupDriver"), "{text}");
    }
}

#[tokio::test]
async fn without_a_bus_no_scope_is_made_and_no_holder_is_left() {
    let place = at(Driver::Systemd, "none");
    let (id, scopes) = (pod(1), place.cgroups.by(Driver::Systemd));
    let group = group(&place, &id);
    let error = scopes.make(&group).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.chain().contains("system bus cannot be reached"), "{}", error.chain());
    until_gone(id.as_str()).await;
    scopes.unmake(&group).await.unwrap();
}

#[tokio::test]
async fn with_a_bus_that_hangs_no_holder_is_left() {
    let place = at(Driver::Systemd, "bus");
    let _bus = std::os::unix::net::UnixListener::bind(place.dir.path().join("bus")).unwrap();
    let (id, scopes) = (pod(2), place.cgroups.by(Driver::Systemd));
    let error = scopes.make(&group(&place, &id)).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded);
    until_gone(id.as_str()).await;
}

async fn until_gone(word: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while runs(word) {
        assert!(Instant::now() < deadline, "a holder is left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_scope_that_does_not_go_by_itself_is_kept_on_record_until_systemd_answers() {
    let place = at(Driver::Systemd, "none");
    let (id, scopes) = (pod(3), place.cgroups.by(Driver::Systemd));
    let group = group(&place, &id);
    let dir = place.dir.path().join(group.path.strip_prefix("/").unwrap());
    fs::create_dir_all(dir.join("hold")).unwrap();
    assert_eq!(scopes.unmake(&group).await.unwrap_err().class(), Class::Unavailable);
    fs::remove_dir_all(&dir).unwrap();
    for _ in 0..2 {
        scopes.unmake(&group).await.unwrap();
        scopes.rest(&group).await.unwrap();
    }
}

#[tokio::test]
async fn all_that_a_pod_may_have_left_is_found_by_its_id() {
    let place = at(Driver::Cgroupfs, "none");
    let id = pod(4);
    let scope = place.dir.path().join(format!("x.slice/podbay-{id}.scope"));
    fs::create_dir_all(scope).unwrap();
    let left = place.cgroups.left_of(&id).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|(driver, group)| (driver, group.path)).collect();
    assert_eq!(left[0], (Driver::Cgroupfs, Path::new("/podbay").join(id.as_str())));
    assert_eq!(left[1], (Driver::Systemd, format!("/x.slice/podbay-{id}.scope").into()));
    assert_eq!(left.len(), 2);
}

#[test]
fn a_parent_that_stands_for_no_slice_matters_to_systemd_alone() {
    let new = |driver| {
        let (parent, systemd) = ("a b".into(), Systemd::at("unix:path=/x", Duration::ZERO));
        let layout = Layout::V2 { root: "/nowhere".into() };
        Cgroups::new(Settings { driver, layout, parent, systemd, holder: "/x".into() })
    };
    assert!(new(Driver::Systemd).is_err());
    assert!(new(Driver::Cgroupfs).is_ok());
}

#[test]
fn a_slice_is_what_a_pod_uses_in_whole_if_it_was_named() {
    let place = at(Driver::Systemd, "none");
    let scopes = place.cgroups.by(Driver::Systemd);
    let mut group = group(&place, &pod(5));
    let cgroup = |path: &Path| Cgroup::new(&Layout::at(place.dir.path()).unwrap(), path).unwrap();
    assert_eq!(scopes.measured(&group).unwrap().whole, cgroup(&group.path));
    group.owned = false;
    assert_eq!(scopes.measured(&group).unwrap().whole, cgroup(Path::new("/podbay.slice")));
}

#[test]
fn older_records_are_of_pods_made_by_files() {
    assert_eq!(Driver::default(), Driver::Cgroupfs);
    assert_eq!(serde_json::to_string(&Driver::Systemd).unwrap(), "\"systemd\"");
}
