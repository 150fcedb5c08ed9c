//! A controller with a pod that it may make.

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use controllers::{
    Controller, PidNamespace, Place, Program, Sandbox, Seccomp, Status, pause_rootfs,
};
use names::PodId;

use super::{Host, SOON, Subject, can_run, program};

/// What stays in a pod's folder until the pod itself goes: what a shim leaves of itself, and the
/// folder that an image may be mounted in.
const STAYS: [&str; 5] = ["shim.log", "shim.pid", "streams.sock", "runtime", "pause"];

pub struct Scene<S> {
    pub subject: S,
    pub controller: Arc<dyn Controller>,
    pub host: Host,
}

impl<S: Subject> Scene<S> {
    /// None, and a word about it, where the tests cannot be run.
    pub async fn new(mut subject: S) -> Option<Self> {
        if !can_run(&["podbay-shim", "podbay-pause"]) {
            return None;
        }
        let host = Host::new();
        pause_rootfs(&host.base.join("pause"), &program("podbay-pause")).unwrap();
        let controller = subject.controller(&host).await;
        Some(Self { subject, controller, host })
    }

    /// As if the process of the controller had been killed and started again.
    pub async fn restart(&mut self) {
        self.controller = self.subject.controller(&self.host).await;
    }

    /// A pod with all that is around its sandbox: folder, cgroup, network namespace.
    pub fn pod(&self) -> Sandbox {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let id = PodId::from_bytes([NEXT.fetch_add(1, Ordering::Relaxed); 32]);
        let place = Place {
            dir: self.host.base.join("pods").join(&id.as_str()[..8]),
            cgroup: self.host.cgroup.join(&id.as_str()[..8]),
            id,
        };
        fs::create_dir(&place.dir).unwrap();
        Host::group(&place.cgroup).make().unwrap();
        let netns = self.host.base.join("netns").join(&place.id.as_str()[..8]);
        sys::netns::make(&netns, &[]).unwrap();
        sandbox(place, netns, self.host.base.join("pause"))
    }

    pub async fn started(&self, sandbox: &Sandbox) -> controllers::Started {
        self.controller.create(sandbox).await.unwrap();
        self.controller.start(&sandbox.place).await.unwrap()
    }

    pub async fn status(&self, sandbox: &Sandbox) -> Status {
        self.controller.status(&sandbox.place).await.unwrap()
    }

    /// Shuts it down, after which there is nothing of it.
    pub async fn shut_down(&self, sandbox: &Sandbox) {
        self.controller.shutdown(&sandbox.place).await.unwrap();
        self.assert_gone(sandbox).await;
    }

    pub async fn assert_gone(&self, sandbox: &Sandbox) {
        let place = &sandbox.place;
        assert_eq!(self.status(sandbox).await, Status::Gone);
        let left = names(&place.dir);
        assert!(left.iter().all(|name| STAYS.contains(&name.as_str())), "{left:?}");
        assert_eq!(Host::mounts(&place.dir), Vec::<PathBuf>::new());
        let own = place.cgroup.file_name().unwrap();
        let groups = Host::groups(&place.cgroup);
        assert!(groups.iter().all(|group| group.file_name() == Some(own)), "{groups:?}");
        assert!(Host::group(&place.cgroup).pids().unwrap().is_empty());
        // A shim may be seen for a moment after its end.
        let folder = format!("{}", place.id);
        until("its processes are gone", || {
            !self.host.processes().iter().any(|(_, line)| line.contains(&folder))
        });
    }
}

fn sandbox(place: Place, netns: PathBuf, rootfs: PathBuf) -> Sandbox {
    Sandbox {
        place,
        name: "web".into(),
        namespace: "default".into(),
        uid: "u-1".into(),
        attempt: 0,
        labels: [("app".to_owned(), "web".to_owned())].into(),
        annotations: Default::default(),
        hostname: "contract".into(),
        log_directory: None,
        netns: Some(netns),
        user_namespace: None,
        host_ipc: false,
        pid: PidNamespace::Container,
        shm: None,
        sysctls: Default::default(),
        user: None,
        group: None,
        groups: Vec::new(),
        privileged: false,
        seccomp: Seccomp::RuntimeDefault,
        program: Program { rootfs, args: vec!["/pause".into()], env: Vec::new() },
        runtime: String::new(),
    }
}

/// What is in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What must come to its end.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it comes to its end")
}

/// Waits for something that must soon be so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        // A signal ends it early.
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
}
