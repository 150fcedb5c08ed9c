//! The program itself, run against runtimes that make nothing.

mod fake;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use fake::Fake;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const SMALL: [&str; 4] = ["--rounds=3", "--pods=4", "--parallel=2", "--held=2"];

fn place() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn command(socket: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podbay-bench"));
    command.args([OsStr::new("--socket"), socket.as_os_str()]).args(SMALL).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn end_of(child: Child) -> Output {
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .expect("the bench ends within a minute")
        .expect("the bench can be waited for")
}

async fn bench(socket: &Path, flags: &[&str]) -> Output {
    end_of(command(socket, flags).spawn().expect("the bench can be run")).await
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", told(output));
    serde_json::from_slice(&output.stdout).expect("it printed JSON")
}

fn measure<'a>(target: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let measures = target["measures"].as_array().expect("there are measures");
    measures.iter().find(|m| m["measure"] == name).expect("it was measured")
}

#[tokio::test]
async fn everything_is_measured_and_nothing_is_left() {
    let (place, fake) = (place(), Fake::new("podbay"));
    let socket = fake.serve(place.path());
    let output = bench(&socket, &["--json"]).await;
    let target = &json(&output)["targets"][0];
    assert_eq!(target["name"], "podbay 1.2.3");
    assert_eq!(target["image"], "docker.io/library/busybox:1");
    for each_round in ["run_pod_sandbox", "pod_up", "remove_pod_sandbox", "exec_sync"] {
        assert_eq!(measure(target, each_round)["count"], 3, "{each_round}");
    }
    assert_eq!(measure(target, "crowd_pod_up")["count"], 4);
    let count = target["measures"].as_array().map(Vec::len);
    assert_eq!(count, Some(22), "every line of the table has a value");
    // A round to warm up and three, the crowd, the held.
    assert_eq!(fake.made(), 4 + 4 + 2);
    assert_eq!(fake.pods(), [""; 0]);
}

#[tokio::test]
async fn the_daemon_is_the_process_that_listens() {
    let (place, fake) = (place(), Fake::new("podbay"));
    let socket = fake.serve(place.path());
    let output = bench(&socket, &["--json"]).await;
    let target = &json(&output)["targets"][0];
    // That is us: a test is larger than 1 MiB, and smaller than 1 GiB.
    let pss = measure(target, "daemon_pss")["p50"].as_f64().expect("a number");
    assert!((1.0..1024.0).contains(&pss), "{pss} MiB");
}

#[tokio::test]
async fn the_slower_of_two_is_behind() {
    let (place, fast) = (place(), Fake::new("fast"));
    let slow = Fake::new("slow").slow(Duration::from_millis(30));
    let (fast_socket, slow_socket) = (fast.serve(place.path()), slow.serve(place.path()));
    let other = slow_socket.to_str().expect("a path of ours");
    let output = bench(&fast_socket, &["--other", other, "--network=host"]).await;
    assert!(output.status.success(), "{}", told(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = table.lines().find(|l| l.starts_with("RunPodSandbox")).expect("it was measured");
    let ahead = line.split_ascii_whitespace().last().and_then(|w| w.strip_suffix('x'));
    let ahead: f64 = ahead.expect("a ratio").parse().expect("a number");
    assert!(ahead > 1.5, "{table}");
    assert!(table.contains("A  fast 1.2.3") && table.contains("B  slow 1.2.3"), "{table}");
    assert_eq!((fast.pods().len(), slow.pods().len()), (0, 0));
}

#[tokio::test]
async fn what_an_earlier_run_left_is_removed_and_nothing_else() {
    let (place, fake) = (place(), Fake::new("podbay"));
    fake.put("left", &[("podbay-bench", "1")]);
    fake.put("other", &[("podbay-bench", "no")]);
    fake.put("foreign", &[("app", "shop")]);
    let socket = fake.serve(place.path());
    assert!(bench(&socket, &[]).await.status.success());
    assert_eq!(fake.pods(), ["foreign", "other"]);
}

#[tokio::test]
async fn a_call_that_fails_is_told_and_nothing_is_left() {
    let place = place();
    // In the crowd, while others are on their way.
    let fake = Fake::new("podbay").fails_at_start(6);
    let socket = fake.serve(place.path());
    let output = bench(&socket, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!(
        "podbay-bench: StartContainer at {}: Internal: the fake was told to fail\n",
        socket.display()
    );
    assert_eq!(told(&output), wanted);
    assert_eq!(fake.pods(), [""; 0]);
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing() {
    let place = place();
    let fake = Fake::new("podbay").slow(Duration::from_millis(50));
    let socket = fake.serve(place.path());
    let child = command(&socket, &["--held=500"]).spawn().expect("the bench can be run");
    fake.until_held(3).await;
    let pid =
        child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::INT)
        .expect("it is ours");
    let output = end_of(child).await;
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert_eq!(fake.pods(), [""; 0]);
}

#[tokio::test]
async fn an_image_can_be_made_and_goes_again() {
    let (place, fake) = (place(), Fake::new("podbay"));
    let socket = fake.serve(place.path());
    let busybox = place.path().join("busybox");
    std::fs::write(&busybox, "not really").expect("the directory is ours");
    let flag = format!("--make-image={}", busybox.display());
    let output = bench(&socket, &[&flag, "--json"]).await;
    assert_eq!(json(&output)["targets"][0]["image"], "podbay.invalid/bench:latest");
    assert_eq!(fake.images(), ["docker.io/library/busybox:1"]);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_not_pulled() {
    let (place, fake) = (place(), Fake::new("podbay"));
    let socket = fake.serve(place.path());
    let output = bench(&socket, &["--image=nginx"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("no image nginx at"), "{}", told(&output));
    assert_eq!(fake.made(), 0);
}

#[tokio::test]
async fn a_socket_at_which_nobody_answers_is_named() {
    let place = place();
    let socket = place.path().join("no.sock");
    let output = bench(&socket, &[]).await;
    assert_eq!(output.status.code(), Some(3));
    let wanted = format!("nobody answers at {}", socket.display());
    assert!(told(&output).contains(&wanted), "{}", told(&output));
}
