//! What a sandbox is: its namespaces, name, settings and processes, as the kernel shows them.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use controllers::{Namespaces, PidNamespace};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Scene, Subject, scene::until};

/// Which namespace it is.
fn number(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}

fn ours(kind: &str) -> u64 {
    number(&Path::new("/proc/self/ns").join(kind))
}

/// By name: ours, and the sandbox's.
fn pairs(namespaces: &Namespaces) -> Vec<(&'static str, Option<PathBuf>)> {
    vec![
        ("net", namespaces.network.clone()),
        ("ipc", namespaces.ipc.clone()),
        ("uts", namespaces.uts.clone()),
    ]
}

/// Does something inside a namespace, on a thread that then ends.
fn within<T: Send>(path: &Path, kind: LinkNameSpaceType, work: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(path).unwrap();
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
            work()
        });
        inside.join().unwrap()
    })
}

pub async fn its_namespaces_are_its_own(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let (one, two) = (scene.pod(), scene.pod());
    let (of_one, of_two) = (scene.started(&one).await, scene.started(&two).await);
    let both = pairs(&of_one.namespaces).into_iter().zip(pairs(&of_two.namespaces));
    for ((kind, path), (_, other)) in both {
        let (path, other) = (path.unwrap(), other.unwrap());
        assert!(path.is_absolute() && other.is_absolute());
        assert_ne!(number(&path), ours(kind), "{kind}");
        assert_ne!(number(&path), number(&other), "{kind}");
    }
    let given = one.netns.as_deref().unwrap();
    assert_eq!(number(of_one.namespaces.network.as_deref().unwrap()), number(given));
    scene.shut_down(&one).await;
    scene.shut_down(&two).await;
    assert!(sys::netns::is_netns(given), "the network is not the controller's to remove");
}

pub async fn it_has_its_own_name_and_settings(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let mut pod = scene.pod();
    let setting = "/proc/sys/kernel/msgmax";
    let before = fs::read_to_string(setting).unwrap();
    pod.sysctls = [("kernel.msgmax".to_owned(), "12345".to_owned())].into();
    let started = scene.started(&pod).await;
    let name = within(
        started.namespaces.uts.as_deref().unwrap(),
        LinkNameSpaceType::HostNameAndNISDomainName,
        || rustix::system::uname().nodename().to_string_lossy().into_owned(),
    );
    assert_eq!(name, pod.hostname);
    let set = within(
        started.namespaces.ipc.as_deref().unwrap(),
        LinkNameSpaceType::InterProcessCommunication,
        || fs::read_to_string(setting).unwrap(),
    );
    assert_eq!(set.trim(), "12345");
    assert_eq!(fs::read_to_string(setting).unwrap(), before, "the host keeps its own");
    scene.shut_down(&pod).await;
}

pub async fn it_leaves_the_hosts_namespaces_alone_if_it_shares_them(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let mut pod = scene.pod();
    let name = rustix::system::uname().nodename().to_owned();
    (pod.netns, pod.host_ipc, pod.pid) = (None, true, PidNamespace::Host);
    let started = scene.started(&pod).await;
    let with_pid = [("pid", started.namespaces.pid.clone())];
    for (kind, path) in pairs(&started.namespaces).into_iter().chain(with_pid) {
        assert!(path.is_none_or(|path| number(&path) == ours(kind)), "{kind}");
    }
    scene.shut_down(&pod).await;
    assert_eq!(rustix::system::uname().nodename(), &*name);
}

pub async fn shared_processes_have_an_init(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let mut pod = scene.pod();
    pod.pid = PidNamespace::Pod;
    let started = scene.started(&pod).await;
    let pid = started.pid.expect("somebody must be their init");
    let path = started.namespaces.pid.expect("containers join it");
    assert_ne!(number(&path), ours("pid"));
    assert_eq!(number(&path), number(Path::new(&format!("/proc/{pid}/ns/pid"))));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert_eq!(line.split_whitespace().last(), Some("1"), "{line}");
    let own = started.namespaces.uts.unwrap();
    assert_eq!(number(&own), number(Path::new(&format!("/proc/{pid}/ns/uts"))));
    scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    until("the init is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    scene.shut_down(&pod).await;
}

pub async fn without_shared_processes_it_has_no_process_it_does_not_need(subject: impl Subject) {
    let Some(scene) = Scene::new(subject).await else { return };
    let pod = scene.pod();
    let started = scene.started(&pod).await;
    assert_eq!(started.pid.is_some(), scene.subject.always_has_a_process());
    assert_eq!(started.namespaces.pid.is_some(), scene.subject.always_has_a_process());
    scene.shut_down(&pod).await;
}
