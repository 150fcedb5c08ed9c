//! The program itself, run against runtimes that make nothing.

mod fake;

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
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
async fn handlers_of_one_socket_take_turns_and_share_an_image() {
    let (place, fake) = (place(), Fake::new("podbay").tells("{}", &["", "pause", "podbay"]));
    let socket = fake.serve(place.path());
    let busybox = place.path().join("busybox");
    std::fs::write(&busybox, "not really").expect("the directory is ours");
    let image = format!("--make-image={}", busybox.display());
    let output = bench(&socket, &["--handler=podbay,pause,", "--held=3", &image, "--json"]).await;
    let told = json(&output);
    let targets = told["targets"].as_array().expect("there are columns");
    let columns = targets.iter().map(|t| format!("{} {}", t["letter"], t["handler"]));
    assert_eq!(columns.collect::<Vec<_>>(), [r#""A" "podbay""#, r#""B" "pause""#, r#""C" """#]);
    for target in targets {
        let count = target["measures"].as_array().map(Vec::len);
        assert_eq!(count, Some(22), "every line of the table has a value");
        assert_eq!(measure(target, "crowd_pod_up")["count"], 4);
    }
    // The warm-up and three rounds, each begun by another.
    let rounds = ["podbay", "pause", "", "pause", "", "podbay", "", "podbay", "pause"];
    assert_eq!(fake.handlers()[..9], rounds);
    // Rounds, crowds, each held alone, held together.
    assert_eq!(fake.made(), 3 * (4 + 4 + 3) + 3);
    assert_eq!((fake.images_made(), fake.pods().len()), (1, 0));
}

#[tokio::test]
async fn three_sockets_are_three_columns() {
    let place = place();
    let fakes = ["one", "two", "three"].map(Fake::new);
    let [one, two, three] = fakes.each_ref().map(|fake| fake.serve(place.path()));
    let others = [two, three].map(|path| format!("--other={}", path.display()));
    let output = bench(&one, &[&others[0], &others[1]]).await;
    assert!(output.status.success(), "{}", told(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let head = table.lines().find(|line| line.contains("P50")).expect("the table has a head");
    let heads: Vec<_> = head.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(heads, ["A P50", "A P95", "B P50", "B P95", "C P50", "C P95", "A>B", "A>C"]);
    assert!(table.contains("C  three 1.2.3"), "{table}");
    assert_eq!(fakes.map(|fake| fake.pods().len()), [0, 0, 0]);
}

#[tokio::test]
async fn a_handler_that_is_not_there_is_told_before_anything_is_made() {
    let (place, fake) = (place(), Fake::new("podbay").tells("{}", &["", "pause", "podbay"]));
    let socket = fake.serve(place.path());
    let output = bench(&socket, &["--handler=podbay,puase"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("no handler puase at"), "{}", told(&output));
    assert_eq!(fake.made(), 0);
}

/// A process with this name and this command line. It ends when the test does.
fn standing(place: &Path, name: &str, argument: &Path) -> std::process::Child {
    let program = place.join(name);
    std::os::unix::fs::symlink("/bin/sh", &program).expect("the directory is ours");
    let mut command = std::process::Command::new(program);
    command.arg0("sh").args(["-c", "read line", "sh"]).arg(argument).stdin(Stdio::piped());
    command.spawn().expect("there is a shell")
}

#[tokio::test]
async fn a_supervisor_from_before_counts_whole_unless_it_serves_other_pods() {
    let place = place();
    let config = serde_json::json!({ "state": place.path().join("state") }).to_string();
    let fake = Fake::new("podbay").tells(&config, &[]);
    let socket = fake.serve(place.path());
    // Only by its command line can it be known: the daemon is said to be another.
    let mut ours = standing(place.path(), "ours", &place.path().join("state/shims/node"));
    let mut foreign = standing(place.path(), "foreign", &place.path().join("other/shims/node"));
    let daemon = format!("--pid={}", foreign.id());
    let flags = ["--supervisors=ours,foreign", &daemon, "--json"];
    let alone = json(&bench(&socket, &flags).await);
    fake.put("shop", &[("app", "shop")]);
    let beside = json(&bench(&socket, &flags).await);
    for process in [&mut ours, &mut foreign] {
        drop(process.stdin.take());
        process.wait().expect("it is ours");
    }
    let (alone, beside) = (&alone["targets"][0], &beside["targets"][0]);
    for (target, counted, other_pods) in [(alone, "whole", 0), (beside, "growth", 1)] {
        let wanted = serde_json::json!({
            "started": {}, "standing": { "ours": 1 },
            "standing_counted": counted, "other_pods": other_pods,
        });
        assert_eq!(target["supervisors"], wanted);
    }
    let pss = |target| measure(target, "supervisor_pss")["p50"].as_f64().expect("a number");
    assert!(pss(alone) > 20.0, "a shell is larger than 40 KiB: {}", pss(alone));
    assert!(pss(beside).abs() < pss(alone), "{} of {}", pss(beside), pss(alone));
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
