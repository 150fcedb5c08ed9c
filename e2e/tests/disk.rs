//! A disk that is full: what cannot be done is said, what frees something is done, and all is well when
//! there is space again.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use e2e::{Daemon, Layer, Layout, Options, Registry, lead, sleeps};
use tonic::{Code, Status};

/// A file that takes all the space that there is on the disk of the daemon's root.
struct Filler(PathBuf);

impl Filler {
    fn fill(root: &Path) -> Self {
        let path = root.join("filler");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            let block = vec![0; size];
            let full = loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        }
        Self(path)
    }

    fn empty(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

/// That the answer says what is the matter.
fn is_full<T>(what: &str, answer: Result<T, Status>) {
    let Err(status) = answer else { panic!("{what} was done on a full disk") };
    assert_eq!(status.code(), Code::ResourceExhausted, "{what}: {status}");
    let said = status.message().to_lowercase();
    assert!(said.contains("no space left"), "{what}: {status}");
}

#[tokio::test]
async fn a_full_disk_stops_what_takes_space_and_nothing_that_frees_it() {
    let options = Options::default().on_small_disk("32m");
    let Some(mut node) = Daemon::start(options).await else { return };
    let before = node.warm_snapshot().await;
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("early")).await.unwrap();
    let running = cri.launch(&pod, &sleeps("running")).await.unwrap();
    let created = cri.create(&pod, &sleeps("created")).await.unwrap();
    let removed = cri.run_pod(&node.pod("removed")).await.unwrap();
    cri.launch(&removed, &sleeps("c")).await.unwrap();
    let filler = Filler::fill(&node.place.root());

    is_full("RunPodSandbox", cri.run_pod(&node.pod("late")).await);
    is_full("CreateContainer", cri.create(&pod, &sleeps("late")).await);
    assert_eq!(cri.pods().await.unwrap().len(), 2, "what could not be made is not shown");
    assert_eq!(cri.shell(&running, "echo here").await.unwrap(), "here");
    cri.stop(&running, 1).await.expect("a container stops on a full disk");
    cri.remove(&created).await.expect("a container goes on a full disk");
    cri.stop_pod(&removed).await.expect("a pod stops on a full disk");
    assert!(!cri.is_ready(&removed).await.unwrap());
    cri.remove_pod(&removed).await.expect("a pod goes on a full disk");
    assert!(cri.is_ready(&pod).await.unwrap(), "others are not concerned");

    filler.empty();
    let late = cri.run_pod(&node.pod("late")).await.expect("there is space again");
    cri.launch(&late, &sleeps("c")).await.expect("there is space again");
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert!(cri.is_ready(&late).await.unwrap());
    assert_eq!(cri.quarantine().await.unwrap(), []);
    cri.remove_all().await.unwrap();
    node.assert_untouched(&before, "a full disk").await;
}

#[tokio::test]
async fn a_daemon_starts_on_a_full_disk_and_removes_what_it_has() {
    let options = Options::default().on_small_disk("32m");
    let Some(mut node) = Daemon::start(options).await else { return };
    let before = node.warm_snapshot().await;
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    let id = node.cri().launch(&pod, &sleeps("c")).await.unwrap();
    let filler = Filler::fill(&node.place.root());
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert!(cri.is_ready(&pod).await.unwrap());
    assert_eq!(cri.shell(&id, "echo here").await.unwrap(), "here");
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    filler.empty();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    node.assert_untouched(&before, "a full disk").await;
}

#[tokio::test]
async fn a_pull_that_does_not_fit_says_so_and_leaves_nothing() {
    let options = Options::default().on_small_disk("32m");
    let Some(node) = Daemon::start(options).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let large: Layer = vec![("large".into(), 0o644, vec![7; 48 << 20])];
    let small: Layer = vec![("small".into(), 0o644, vec![7; 1 << 10])];
    let layouts = node.folder("layouts");
    registry.push(&Layout::write(&layouts.join("large"), &[small.clone(), large]), "large:1");
    registry.push(&Layout::write(&layouts.join("small"), &[small]), "small:1");
    let (before, cri) = (node.snapshot(), node.cri());
    is_full("PullImage", cri.pull("registry.test/large:1").await);
    assert_eq!(cri.image("registry.test/large:1").await.unwrap(), None);
    node.assert_untouched(&before, "a pull that did not fit").await;
    cri.pull("registry.test/small:1").await.expect("what fits is pulled");
}
