//! A disk that is full: what cannot be done is said, what frees something is done, and all is well when
//! there is space again.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use e2e::{
    Daemon, Layer, Layout, Options, Registry, eventually, is_true, lead, lines, shell, sleeps,
};
use tonic::{Code, Status};

/// A file that takes all the space that there is on the disk of the daemon's root.
struct Filler(PathBuf);

impl Filler {
    fn fill(root: &Path) -> Self {
        let filler = Self(root.join("filler"));
        filler.top_up();
        filler
    }

    /// Takes what was freed since. The daemon gives its reserve up to undo what failed, and may
    /// leave it for others.
    fn top_up(&self) {
        let mut file = File::options().create(true).append(true).open(&self.0).unwrap();
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

    // The file of records has some room of its own, and else a pod takes none of the disk.
    let mut fit = Vec::new();
    let refused = loop {
        filler.top_up();
        match cri.run_pod(&node.pod(&format!("late-{}", fit.len()))).await {
            Ok(pod) if fit.len() < 500 => fit.push(pod),
            answer => break answer,
        }
    };
    is_full("RunPodSandbox", refused);
    filler.top_up();
    is_full("CreateContainer", cri.create(&pod, &sleeps("late")).await);
    let shown = cri.pods().await.unwrap().len();
    assert_eq!(shown, 2 + fit.len(), "what could not be made is not shown");
    for pod in fit {
        cri.remove_pod(&pod).await.expect("a pod goes on a full disk");
    }
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

#[tokio::test]
async fn a_container_does_not_wait_for_the_disk_of_its_log_and_no_line_of_it_is_torn() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let (config, log) = (node.pod("p"), node.log_of("p", "talks"));
    let disk = log.parent().unwrap();
    e2e::run("mount", &["-t", "tmpfs", "-o", "size=256k", "e2e", &disk.display().to_string()]);
    let pod = cri.run_pod(&config).await.unwrap();
    let talks = "n=0; while ! test -e /stop; do echo line $n; n=$((n + 1)); echo $n > /said; \
                 usleep 500; done; exit 5";
    let id = cri.launch(&pod, &shell("talks", talks)).await.unwrap();
    let said = async || cri.shell(&id, "cat /said").await.ok()?.parse::<usize>().ok();
    let filler = Filler::fill(disk);
    let full = eventually("it talks", said).await;
    let goes_on = async || is_true(said().await.is_some_and(|now| now > full + 200));
    eventually("it goes on although nothing can be written", goes_on).await;
    let lines_now = || lines(&log).len();
    let kept = lines_now();
    assert!(kept < full + 200, "there was no space for all of it");
    filler.empty();
    eventually("it is written again", async || is_true(lines_now() > kept + 50)).await;
    // The end of the container may take the command with it, before it has ended by itself.
    let _ = cri.shell(&id, "touch /stop").await;
    assert_eq!(cri.ended(&id).await.unwrap().exit_code, 5);
    let number = |line: e2e::Line| {
        let text = String::from_utf8(line.text).ok()?;
        text.strip_prefix("line ")?.parse::<usize>().ok()
    };
    let numbers: Vec<_> = lines(&log).into_iter().map(|line| number(line).unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, and none twice");
    cri.remove_pod(&pod).await.unwrap();
}
