//! The demo, with a podbayd that makes nothing. As root: the demo refuses anybody else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::fake::Fake;

/// Not a test: what a test starts in the place of podbayd, which is this program once more.
#[tokio::test]
#[ignore = "it is the daemon of the other tests"]
async fn the_daemon() {
    let (Ok(config), Ok(report)) = (std::env::var("FAKE_CONFIG"), std::env::var("FAKE_REPORT"))
    else {
        eprintln!("skipped: only another test starts this");
        return;
    };
    let config = fs::read_to_string(config).expect("the demo has written it");
    let socket = config.lines().find_map(|line| line.strip_prefix("socket = "));
    let socket = socket.expect("it names a socket").trim_matches('"');
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    let fake = Fake::default();
    fake.serve_at(Path::new(socket), true);
    terminate.recv().await;
    let state = fake.state();
    let left = format!("{socket} {} pods {} images", state.pods.len(), state.images.len());
    fs::write(report, left).expect("the test waits for it");
    fs::remove_file(socket).expect("it is ours");
}

/// Whether the demo can be run here; says why not.
fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().any(|p| Path::new(p).exists());
    if !root || !busybox {
        eprintln!("skipped: the demo needs root (root: {root}) and busybox (found: {busybox})");
    }
    root && busybox
}

struct Stage {
    place: TempDir,
    report: PathBuf,
}

impl Stage {
    fn new() -> Stage {
        let place = tempfile::tempdir().expect("a temporary directory");
        Stage { report: place.path().join("report"), place }
    }

    fn script(&self, text: &str) -> PathBuf {
        let path = self.place.path().join("podbayd");
        fs::write(&path, text).expect("the directory is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }

    /// A podbayd that is the function above.
    fn daemon(&self) -> PathBuf {
        let this = std::env::current_exe().expect("we are a program");
        self.script(&format!(
            "#!/bin/sh\nFAKE_CONFIG=\"$2\" FAKE_REPORT={} exec {} --exact demo::the_daemon --ignored\n",
            self.report.display(),
            this.display(),
        ))
    }

    fn demo(&self, podbayd: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_podbay"))
            .arg("demo")
            .arg("--podbayd")
            .arg(podbayd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("podbay can be run")
    }

    /// What the daemon had left when it ended, and that nothing of the demo's place is left.
    fn end(&self) -> String {
        let report = fs::read_to_string(&self.report).expect("the daemon has ended in order");
        let (socket, left) = report.split_once(' ').expect("it begins with the socket");
        let place = Path::new(socket).parent().expect("the socket is in the place");
        assert!(!place.exists(), "{} is left", place.display());
        left.to_owned()
    }
}

async fn end_of(child: Child) -> Output {
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .expect("the demo ends within a minute")
        .expect("the demo can be waited for")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_demo_shows_a_pod_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let output = end_of(stage.demo(&stage.daemon())).await;
    let (told, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
    for wanted in [
        "daemon up",
        "pod a0a0a0a0a0a0a, address 10.89.0.2",
        "| line 3",
        "| addr show eth0",
        "memory 512kB, CPU 3.0 ms since its start",
        "daemon gone",
        "Nothing is left.",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert!(!told.contains('\x1b'), "there is no terminal: {told}");
    assert_eq!(stage.end(), "0 pods 0 images");
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_either() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut child = stage.demo(&stage.daemon());
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    while let Some(line) = lines.next_line().await.expect("it can be read") {
        if line.contains("container up") {
            break;
        }
    }
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("it runs"), Signal::INT).expect("it is ours");
    // Somebody who presses Ctrl-C still reads.
    while lines.next_line().await.expect("it can be read").is_some() {}
    let output = end_of(child).await;
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "podbay: interrupted; nothing was left\n");
    assert_eq!(stage.end(), "0 pods 0 images");
}

#[tokio::test]
async fn a_daemon_that_does_not_come_up_has_the_last_word() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let podbayd = stage.script("#!/bin/sh\necho \"$2: no such key\" >&2\nexit 3\n");
    let output = end_of(stage.demo(&podbayd)).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("podbay: podbayd ended before it was up (exit status: 3)"), "{said}");
    let config = said.lines().last().and_then(|l| l.strip_suffix(": no such key"));
    let place = Path::new(config.expect("its last words are told")).parent();
    assert!(!place.expect("the config is in the place").exists());
}
