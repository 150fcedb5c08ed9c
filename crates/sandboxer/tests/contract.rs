//! A podbay-sandboxer of its own for each test, asked by our client: it keeps the contract of
//! controllers, and what else a process must that is killed, ended, and left alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../controllers/tests/contract/suite/mod.rs"]
mod suite;

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use controllers::{Controller, Exit, PidNamespace, Prepare, Sandboxer, SandboxerConfig, Status};
use names::Class;
use rustix::process::{Pid, Signal, kill_process};
use suite::{Host, SOON, Scene, Subject, program};

/// A sandboxer, and how its client is to be.
struct Kept {
    grouping: &'static str,
    prepare: Prepare,
    name: &'static str,
    shim: PathBuf,
    deadline: Duration,
    process: Option<Child>,
}

impl Kept {
    fn new(grouping: &'static str, prepare: Prepare) -> Self {
        let shim = program("podbay-shim");
        Self { grouping, prepare, name: "", shim, deadline: SOON, process: None }
    }

    fn plain() -> Self {
        Self::new("pod", Prepare::None)
    }

    fn command(&self, host: &Host) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podbay-sandboxer"));
        command.args(["--kind", "namespaces", "--log", "debug", "--shim-deadline", "2s"]);
        command.args(["--shim-grouping", self.grouping, "--shim"]).arg(&self.shim);
        command.arg("--pause").arg(program("podbay-pause"));
        for (option, name) in [("--socket", "s.sock"), ("--state", "state"), ("--root", "root")] {
            command.arg(option).arg(host.base.join(name));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn start(&mut self, host: &Host) {
        let log = fs::File::options().create(true).append(true).open(host.base.join("log"));
        let socket = host.base.join("s.sock");
        // A child of the one before may have it yet, between fork and exec.
        let _ = fs::remove_file(&socket);
        self.process = Some(self.command(host).stderr(log.unwrap()).spawn().unwrap());
        until("it listens", || UnixStream::connect(&socket).is_ok());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn client(&self, host: &Host) -> Sandboxer {
        Sandboxer::new(SandboxerConfig {
            name: "ours".into(),
            address: format!("unix://{}", host.base.join("s.sock").display()).into(),
            sandboxer: self.name.into(),
            deadline: self.deadline,
            start_deadline: SOON,
            grace: SOON,
            prepare: self.prepare,
        })
    }
}

#[async_trait]
impl Subject for Kept {
    async fn controller(&mut self, host: &Host) -> Arc<dyn Controller> {
        self.kill();
        self.start(host);
        Arc::new(self.client(host))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        // A signal ends it early.
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
}

mod with_a_shim_for_each_pod {
    crate::keeps_the_contract!(super::Kept::plain());
}

mod with_a_shim_for_the_node_and_told_of_tasks {
    use controllers::Prepare;

    crate::keeps_the_contract!(super::Kept::new("node", Prepare::ExtensionsTasks));
}

fn state(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.base.join("state/sandboxes")).unwrap().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn a_second_sandbox_of_the_same_name_is_refused_and_the_first_goes_on() {
    let Some(scene) = Scene::new(Kept::plain()).await else { return };
    let pod = scene.pod();
    scene.started(&pod).await;
    let error = scene.controller.create(&pod).await.unwrap_err();
    assert_eq!(error.class(), Class::AlreadyExists);
    assert!(names::chain(&error).contains(pod.place.id.as_str()), "{}", names::chain(&error));
    assert_eq!(scene.status(&pod).await, Status::Running);
    scene.shut_down(&pod).await;
    assert_eq!(state(&scene.host), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_call_for_another_sandboxer_is_refused() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    let pod = scene.pod();
    for (name, class) in [("other", Some(Class::InvalidArgument)), ("namespaces", None)] {
        scene.subject.name = name;
        let client = scene.subject.client(&scene.host);
        assert_eq!(client.create(&pod).await.err().map(|error| error.class()), class);
        assert_eq!(client.start(&pod.place).await.err().map(|error| error.class()), class);
    }
    scene.shut_down(&pod).await;
}

#[tokio::test]
async fn what_is_asked_for_and_cannot_be_is_refused_with_its_field() {
    let Some(scene) = Scene::new(Kept::plain()).await else { return };
    let mut pod = scene.pod();
    pod.netns = Some("/etc/passwd".into());
    let error = scene.controller.create(&pod).await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidArgument);
    assert!(names::chain(&error).contains("netns_path"), "{}", names::chain(&error));
    scene.shut_down(&pod).await;
}

#[tokio::test]
async fn a_wait_lasts_over_a_kill_of_the_sandboxer_and_then_tells_the_truth() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    let (pod, controller) = (scene.pod(), scene.controller.clone());
    scene.started(&pod).await;
    let place = pod.place.clone();
    let wait = tokio::spawn(async move { controller.wait(&place).await });
    for _ in 0..3 {
        scene.restart().await;
        assert!(!wait.is_finished());
        assert_eq!(scene.status(&pod).await, Status::Running);
    }
    scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    let exit = tokio::time::timeout(SOON, wait).await.unwrap().unwrap().unwrap();
    assert_eq!(scene.status(&pod).await, Status::Stopped(exit));
    scene.shut_down(&pod).await;
}

#[tokio::test]
async fn what_ended_while_the_sandboxer_was_dead_is_found_ended() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    let mut pod = scene.pod();
    pod.pid = PidNamespace::Pod;
    let init = scene.started(&pod).await.pid.unwrap();
    let (controller, place) = (scene.controller.clone(), pod.place.clone());
    let wait = tokio::spawn(async move { controller.wait(&place).await });
    scene.subject.kill();
    kill_process(Pid::from_raw(init.cast_signed()).unwrap(), Signal::KILL).unwrap();
    scene.restart().await;
    let exit: Exit = tokio::time::timeout(SOON, wait).await.unwrap().unwrap().unwrap();
    assert_eq!(exit.code, 137);
    scene.shut_down(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_it_is_asked_to_and_sandboxes_and_their_waits_go_on() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    let (pod, controller) = (scene.pod(), scene.controller.clone());
    scene.started(&pod).await;
    let place = pod.place.clone();
    let wait = tokio::spawn(async move { controller.wait(&place).await });
    let mut process = scene.subject.process.take().unwrap();
    kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
    assert!(process.wait().unwrap().success());
    assert!(!scene.host.base.join("s.sock").exists());
    scene.restart().await;
    assert_eq!(scene.status(&pod).await, Status::Running);
    assert!(!wait.is_finished());
    scene.shut_down(&pod).await;
    tokio::time::timeout(SOON, wait).await.unwrap().unwrap().unwrap();
}

/// Stands in for a supervisor that takes its socket and never answers: it waits for signals.
fn deaf_shim() -> PathBuf {
    program("podbay-pause")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_half_made_when_it_was_killed_is_gone_after_its_next_start() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    scene.subject.shim = deaf_shim();
    scene.restart().await;
    let mut pod = scene.pod();
    pod.pid = PidNamespace::Pod;
    let (controller, asked) = (scene.controller.clone(), pod.clone());
    let create = tokio::spawn(async move { controller.create(&asked).await });
    let dir = scene.host.base.join("state/sandboxes").join(pod.place.id.as_str());
    until("it is being made", || dir.join("shim.log").exists());
    scene.subject.kill();
    assert_eq!(create.await.unwrap().unwrap_err().class(), Class::Unavailable);
    assert!(dir.join("ns/ipc").exists());
    scene.subject.shim = program("podbay-shim");
    scene.restart().await;
    assert_eq!(scene.status(&pod).await, Status::Gone);
    assert!(!dir.exists());
    assert_eq!(Host::mounts(&dir), Vec::<PathBuf>::new());
    scene.shut_down(&pod).await;
    scene.started(&pod).await;
    scene.shut_down(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_goes_on_to_its_end_without_its_client() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    scene.subject.shim = deaf_shim();
    scene.subject.deadline = Duration::from_millis(300);
    scene.restart().await;
    let mut pod = scene.pod();
    pod.pid = PidNamespace::Pod;
    let error = scene.controller.create(&pod).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded, "{}", names::chain(&error));
    assert!(names::chain(&error).contains("\"ours\": Create"), "{}", names::chain(&error));
    // The shim's own deadline of two seconds ends it, and what was made of it goes.
    until("it is undone", || state(&scene.host).is_empty());
    scene.shut_down(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_comes_after_the_create_that_it_undoes() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    scene.subject.shim = deaf_shim();
    scene.restart().await;
    let mut pod = scene.pod();
    pod.pid = PidNamespace::Pod;
    let (controller, asked) = (scene.controller.clone(), pod.clone());
    let create = tokio::spawn(async move { controller.create(&asked).await });
    let dir = scene.host.base.join("state/sandboxes").join(pod.place.id.as_str());
    until("it is being made", || dir.join("shim.log").exists());
    create.abort();
    scene.shut_down(&pod).await;
    assert_eq!(state(&scene.host), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_sandbox_without_a_record_is_served_on_until_it_is_shut_down() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    let pod = scene.pod();
    scene.started(&pod).await;
    scene.subject.kill();
    fs::remove_dir_all(scene.host.base.join("root")).unwrap();
    scene.restart().await;
    assert_eq!(scene.status(&pod).await, Status::Running);
    scene.controller.stop(&pod.place, Duration::ZERO).await.unwrap();
    scene.shut_down(&pod).await;
    assert_eq!(state(&scene.host), Vec::<PathBuf>::new());
}

fn run_second(command: &mut Command) -> Output {
    command.stderr(Stdio::piped()).output().unwrap()
}

#[tokio::test]
async fn two_cannot_have_the_same_state_or_socket() {
    let Some(scene) = Scene::new(Kept::plain()).await else { return };
    let base = &scene.host.base;
    let elsewhere = |option: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podbay-sandboxer"));
        command.args(["--kind", "namespaces", "--shim"]).arg(program("podbay-shim"));
        command.arg("--pause").arg(program("podbay-pause"));
        for (it, name) in [("--socket", "s.sock"), ("--state", "state"), ("--root", "root")] {
            let name = if it == option { name.to_owned() } else { format!("other-{name}") };
            command.arg(it).arg(base.join(name));
        }
        run_second(&mut command)
    };
    for option in ["--state", "--socket", "--root"] {
        let output = elsewhere(option);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(option.trim_start_matches("--")), "{said}");
    }
}

#[tokio::test]
async fn verbose_status_says_where_things_are_and_the_platform_is_this_one() {
    let Some(scene) = Scene::new(Kept::plain()).await else { return };
    let pod = scene.pod();
    scene.started(&pod).await;
    let platform = scene.controller.platform(&pod.place).await.unwrap();
    assert_eq!(platform, controllers::Platform::of_this_host());
    let endpoint = cri_proto::endpoint(&scene.host.base.join("s.sock")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = sandbox_api::v1::controller_client::ControllerClient::new(channel);
    let request = sandbox_api::v1::ControllerStatusRequest {
        sandbox_id: pod.place.id.to_string(),
        verbose: true,
        sandboxer: String::new(),
    };
    let answer = client.status(request).await.unwrap().into_inner();
    assert!(answer.address.starts_with("ttrpc+unix:///"), "{answer:?}");
    assert_eq!((answer.version, answer.pid), (3, 0));
    let info: serde_json::Value = serde_json::from_str(&answer.info["podbay.sandbox"]).unwrap();
    let uts = info["namespaces"]["uts"].as_str().unwrap();
    assert!(Path::new(uts).exists() && uts.starts_with(scene.host.base.to_str().unwrap()));
    scene.shut_down(&pod).await;
}

#[tokio::test]
async fn a_sandboxer_that_stays_away_is_told_of_when_its_grace_is_over() {
    let Some(mut scene) = Scene::new(Kept::plain()).await else { return };
    let pod = scene.pod();
    scene.started(&pod).await;
    let client = Sandboxer::new(SandboxerConfig {
        name: "ours".into(),
        address: scene.host.base.join("s.sock"),
        sandboxer: String::new(),
        deadline: SOON,
        start_deadline: SOON,
        grace: Duration::from_millis(300),
        prepare: Prepare::None,
    });
    let place = pod.place.clone();
    let wait = tokio::spawn(async move { client.wait(&place).await });
    // Long enough that the wait is there.
    tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>())
        .await
        .unwrap_err();
    scene.subject.kill();
    let error = tokio::time::timeout(SOON, wait).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(names::chain(&error).contains("\"ours\": Wait"), "{}", names::chain(&error));
    scene.restart().await;
    scene.shut_down(&pod).await;
}
