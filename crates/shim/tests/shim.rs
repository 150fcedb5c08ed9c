//! The shim as a process: how it is started, what it survives, and when it ends. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::net::UnixListener, unix::process::CommandExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use common::{Pod, SOON, until};
use names::Class;
use serde_json::json;
use shim_api::{Life, Shim, Status};

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn it_listens_at_descriptor_3_and_leads_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("shim.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let fd = listener.as_raw_fd();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podbay-shim"));
    command.args(["--pod", "p", "--dir"]).arg(dir.path()).stdin(Stdio::null());
    // SAFETY: `dup2` is safe to call between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let result = libc::dup2(fd, 3);
            if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    };
    let mut process = command.spawn().unwrap();
    let shim = Shim::new(socket.clone());
    assert_eq!(shim.pid(SOON).await.unwrap(), process.id());
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, process.id().to_string());
    assert_eq!(Life::read(dir.path()).unwrap().unwrap().pid, process.id());
    shim.shutdown(SOON).await.unwrap();
    assert!(process.wait().unwrap().success());
    assert!(socket.exists(), "who has made it takes it away");
}

#[test]
fn without_a_place_to_listen_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podbay-shim"));
    let output = command.args(["--pod", "p", "--dir"]).arg(dir.path()).output().unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("listening socket at descriptor 3"), "{words}");
    let output = Command::new(env!("CARGO_BIN_EXE_podbay-shim")).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("usage"));
}

#[tokio::test]
async fn it_ends_when_asked_but_not_with_containers() {
    let mut pod = Pod::start("");
    let bundle = pod.bundle("a", &["sleep", "1000"]);
    let pid = pod.run(&bundle).await;
    let refused = pod.shim.shutdown(SOON).await.unwrap_err();
    assert_eq!(refused.class(), Class::FailedPrecondition, "{refused}");
    signal(pod.pid(), rustix::process::Signal::TERM);
    until("it has seen the signal", || pod.log().contains("SIGTERM is ignored"));
    assert_eq!(pod.shim.state("a", SOON).await.unwrap().status, Status::Running);
    pod.shim.shutdown_now(SOON).await.unwrap();
    assert!(pod.process.wait().unwrap().success());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(!pod.cgroup("a").exists());
    assert_eq!(pod.shim.list(SOON).await.unwrap_err().class(), Class::Unavailable);
}

#[tokio::test]
async fn an_idle_one_ends_at_a_signal() {
    let mut pod = Pod::start("");
    pod.shim.list(SOON).await.unwrap();
    signal(pod.pid(), rustix::process::Signal::TERM);
    assert!(pod.process.wait().unwrap().success());
}

#[tokio::test]
async fn its_program_is_on_a_mount_that_nobody_can_write_to() {
    let pod = Pod::start("");
    let exe = format!("/proc/{}/exe", pod.pid());
    let flags = rustix::fs::statvfs(exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[tokio::test]
async fn making_a_container_does_not_change_the_shim() {
    let pod = Pod::start("");
    let score = || fs::read_to_string(format!("/proc/{}/oom_score_adj", pod.pid())).unwrap();
    let cwd = || fs::read_link(format!("/proc/{}/cwd", pod.pid())).unwrap();
    let fds = || fs::read_dir(format!("/proc/{}/fd", pod.pid())).unwrap().count();
    pod.shim.list(SOON).await.unwrap();
    let before = (score(), cwd(), fds());
    let bundle = pod.bundle("a", &["sleep", "1000"]);
    for _ in 0..3 {
        pod.run(&bundle).await;
        pod.exec("a", &["true"]).await.unwrap();
        pod.exec("a", &["missing"]).await.unwrap_err();
        pod.shim.delete("a", SOON).await.unwrap();
    }
    let mut broken = pod.bundle("b", &["sleep", "1000"]);
    broken.config["mounts"] = json!([{"destination": "/x", "type": "nonsense", "source": "x"}]);
    pod.create(&broken).await.unwrap_err();
    assert_eq!((score(), cwd(), fds()), before);
    assert_eq!(pod.children(), [""; 0]);
    assert!(!pod.dir.join("runtime").exists());
}

#[tokio::test]
async fn a_create_that_hangs_is_ended_and_the_other_containers_do_not_notice() {
    let pod = Pod::start("");
    let talker = pod.bundle("talker", &["sh", "-c", "while :; do echo x; sleep 0.01; done"]);
    pod.run(&talker).await;
    let mut bundle = pod.bundle("a", &["true"]);
    bundle.config["hooks"] =
        json!({"prestart": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
    let request = pod.request(&bundle);
    let shim = pod.shim.clone();
    let create = tokio::spawn(async move { shim.create(request, Duration::from_secs(2)).await });
    let lines = || talker.logged("stdout").len();
    let before = lines();
    let deadline = std::time::Instant::now() + Duration::from_secs(1);
    while lines() < before + 20 {
        assert!(std::time::Instant::now() < deadline, "the log has stopped");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = create.await.unwrap().unwrap_err();
    assert_eq!(late.class(), Class::DeadlineExceeded, "{late}");
    until("what was half made is unmade", || !pod.cgroup("a").exists());
    assert_eq!(pod.shim.list(SOON).await.unwrap().len(), 1);
    until("what was half made is reaped", || pod.children().len() == 1);
}

#[tokio::test]
async fn hooks_are_run_at_the_start_and_at_the_end() {
    let pod = Pod::start("");
    let mut bundle = pod.bundle("a", &["true"]);
    let hook = |name: &str| {
        let file = pod.dir.join(name);
        json!([{"path": "/usr/bin/touch", "args": ["touch", file]}])
    };
    bundle.config["hooks"] = json!({
        "createRuntime": hook("created"), "poststart": hook("started"), "poststop": hook("stopped"),
    });
    let made = |name: &str| pod.dir.join(name).exists();
    pod.create(&bundle).await.unwrap();
    assert!(made("created") && !made("started"));
    pod.shim.start("a", SOON).await.unwrap();
    assert!(made("started") && !made("stopped"));
    pod.wait("a").await;
    pod.shim.delete("a", SOON).await.unwrap();
    assert!(made("stopped"));
    assert!(!pod.cgroup("a").exists());
}

#[tokio::test]
async fn stdin_is_empty_unless_it_is_kept_open() {
    let pod = Pod::start("");
    let bundle = pod.bundle("a", &["cat"]);
    assert_eq!(pod.run_out(&bundle).await.code, 0);
    let mut bundle = pod.bundle("b", &["cat"]);
    bundle.stdin = true;
    pod.run(&bundle).await;
    let waited = tokio::time::timeout(Duration::from_millis(200), pod.shim.wait("b")).await;
    assert!(waited.is_err(), "it waits for input");
}

#[tokio::test]
async fn a_process_that_holds_the_log_delays_the_end_by_two_seconds_only() {
    let pod = Pod::start("");
    // It is in another cgroup, so that it is not killed with its parent.
    let mut bundle = pod.bundle("a", &["sh", "-c", "sleep 30 & echo $! > /pid; sleep 0.3"]);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    pod.run(&bundle).await;
    let pid = || fs::read_to_string(bundle.dir.join("rootfs/pid")).unwrap_or_default();
    until("the sleeper is there", || pid().ends_with('\n'));
    let refuge = pod.cgroup("refuge");
    refuge.make().unwrap();
    pod.put(pid().trim(), "refuge");
    let began = std::time::Instant::now();
    assert_eq!(pod.wait("a").await.code, 0);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_command_joins_the_containers_user_namespace() {
    let pod = Pod::start("");
    let script = "cat /proc/self/uid_map; readlink /proc/self/ns/user; id -u";
    let mut bundle = pod.bundle("a", &["sh", "-c", &format!("{script}; exec sleep 1000")]);
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let pid = pod.run(&bundle).await;
    until("it has told", || bundle.logged("stdout").ends_with("\n0\n"));
    assert_eq!(bundle.logged("stdout"), pod.say("a", &["sh", "-c", script]).await);
    assert!(bundle.logged("stdout").contains("100000"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t100000\t"), "{status}");
    let open = "echo x > /dev/stdout; echo y > /dev/stderr";
    assert_eq!(pod.say("a", &["sh", "-c", open]).await, "x\n", "its stdio is its own");
}

#[tokio::test]
async fn a_container_without_capabilities_has_none() {
    let pod = Pod::start("");
    let script = "grep Cap /proc/self/status";
    let mut bundle = pod.bundle("a", &["sh", "-c", &format!("{script}; exec sleep 1000")]);
    bundle.config["process"].as_object_mut().unwrap().remove("capabilities");
    pod.run(&bundle).await;
    until("it has told", || bundle.logged("stdout").lines().count() == 5);
    let command = pod.say("a", &["sh", "-c", script]).await;
    assert_eq!(bundle.logged("stdout"), command);
    assert!(command.lines().all(|line| line.ends_with(&"0".repeat(16))), "{command}");
}
