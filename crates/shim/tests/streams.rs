//! Commands whose streams are the client's, under a real shim, with each runtime: what flows
//! through them, how they end, and that nothing is left of them. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    process::{Command, Stdio},
    time::Duration,
};

use common::{Bundle, Pod, SOON, eventually, hear, hear_all, whole, write_all};
use names::Class;
use serde_json::json;
use shim::source::Source;
use shim_api::{
    Exec, ExecStart, Shim, Size,
    proto::{supervisor_ttrpc::SupervisorClient, task_ttrpc::TaskClient},
    supervisor, task,
};
use tokio::sync::oneshot;

with_each_runtime! {
    ten_mebibytes_come_back_whole_from_a_reader_that_stalls
    each_stream_is_the_commands_own_and_the_end_is_told
    a_terminal_has_a_size_a_name_and_an_owner
    a_dropped_command_is_killed_with_its_children
    a_command_dies_with_the_client_that_began_it
    a_command_dies_with_its_container
    a_command_that_left_a_child_has_ended_all_the_same
    what_cannot_be_begun_is_a_clear_error
    many_commands_leave_nothing_behind
    a_command_is_killed_by_its_name
}

const SIZE: Size = Size { width: 100, height: 40 };

async fn sleeping(pod: &Pod) -> Bundle {
    let bundle = pod.bundle("a", &["sleep", "1000"]);
    pod.run(&bundle).await;
    bundle
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn piped(args: &[&str]) -> ExecStart {
    let args = strings(args);
    ExecStart { args, terminal: None, stdin: true, stdout: true, stderr: true }
}

fn on_terminal(args: &[&str]) -> ExecStart {
    ExecStart { args: strings(args), terminal: Some(SIZE), ..ExecStart::default() }
}

async fn end(exec: &Exec) -> i32 {
    exec.wait(Some(SOON)).await.unwrap()
}

async fn ten_mebibytes_come_back_whole_from_a_reader_that_stalls(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let mut exec = pod.shim.exec("a", piped(&["cat"])).await.unwrap();
    let bytes: Vec<u8> =
        (0..10_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (stall, stalled) = oneshot::channel();
    let (stdin, input) = (exec.streams.stdin.take().unwrap(), bytes.clone());
    let writer = tokio::spawn(async move {
        let full = write_until_full(&stdin, &input);
        stall.send(full).unwrap();
        write_all(stdin, &input[full..]).await;
    });
    let full = stalled.await.unwrap();
    assert!(full < bytes.len() / 2, "the command waits for its reader, and we for the command");
    let back = whole(exec.streams.stdout.take().unwrap()).await;
    writer.await.unwrap();
    assert!(back == bytes);
    assert_eq!(end(&exec).await, 0);
}

/// How much went in.
fn write_until_full(to: &OwnedFd, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Ok(n) = rustix::io::write(to, &bytes[written..]) {
        written += n;
    }
    written
}

async fn each_stream_is_the_commands_own_and_the_end_is_told(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let script = "read word; echo out $word; echo err >&2; exit 42";
    let mut exec = pod.shim.exec("a", piped(&["sh", "-c", script])).await.unwrap();
    let late = exec.wait(Some(Duration::from_millis(20))).await.unwrap_err();
    assert_eq!(late.class(), Class::DeadlineExceeded, "{late}");
    assert_eq!(exec.resize(SIZE).unwrap_err().class(), Class::InvalidArgument);
    write_all(exec.streams.stdin.take().unwrap(), b"hello\n").await;
    assert_eq!(whole(exec.streams.stdout.take().unwrap()).await, b"out hello\n");
    assert_eq!(whole(exec.streams.stderr.take().unwrap()).await, b"err\n");
    let (one, other) = tokio::join!(exec.wait(None), exec.wait(Some(SOON)));
    assert_eq!((one.unwrap(), other.unwrap(), end(&exec).await), (42, 42, 42));

    let list = "cat; readlink /proc/self/fd/0; readlink /proc/self/fd/2; ls /proc/self/fd | wc -l";
    let start = ExecStart { stdin: false, stderr: false, ..piped(&["sh", "-c", list]) };
    let mut exec = pod.shim.exec("a", start).await.unwrap();
    assert!(exec.streams.stdin.is_none() && exec.streams.stderr.is_none());
    let told = whole(exec.streams.stdout.take().unwrap()).await;
    // The fourth is the directory that ls itself reads.
    assert_eq!(String::from_utf8(told).unwrap(), "/dev/null\n/dev/null\n4\n");
    let none = ExecStart { args: strings(&["sh", "-c", "kill -9 $$"]), ..ExecStart::default() };
    assert_eq!(end(&pod.shim.exec("a", none).await.unwrap()).await, 137);
}

async fn a_terminal_has_a_size_a_name_and_an_owner(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["sleep", "1000"]);
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    pod.run(&bundle).await;
    let script = "trap 'exit 5' INT; tty; echo $TERM; echo mine > $(tty); \
        echo control > /dev/tty; ls /proc/self/fd | wc -l; stty size; read x; stty size; \
        while :; do sleep 0.01; done";
    let mut exec = pod.shim.exec("a", on_terminal(&["sh", "-c", script])).await.unwrap();
    let terminal = exec.streams.terminal.take().unwrap();
    let keys = terminal.try_clone().unwrap();
    let screen = Source::new(terminal).unwrap();
    // The directory that ls itself reads is one.
    let begin = "/dev/pts/0\r\nxterm\r\nmine\r\ncontrol\r\n4\r\n40 100\r\n";
    assert_eq!(hear(&screen, begin.len()).await, begin);
    exec.resize(Size { width: 120, height: 50 }).unwrap();
    rustix::io::write(&keys, b"\n").unwrap();
    assert_eq!(hear(&screen, 10).await, "\r\n50 120\r\n");
    rustix::io::write(&keys, b"\x03").unwrap();
    // The kernel may flush what is written while it interrupts: only the status tells.
    hear_all(&screen).await;
    assert_eq!(end(&exec).await, 5);
    let sockets = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("tty-");
    assert!(!fs::read_dir(&pod.dir).unwrap().any(|entry| sockets(entry.unwrap())));
}

async fn a_dropped_command_is_killed_with_its_children(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let cgroup = pod.cgroup("a");
    let args = ["sh", "-c", "(sleep 776 &); sleep 777 & (sh -c 'sleep 778; true'); wait"];
    for start in [piped(&args), on_terminal(&args)] {
        let exec = pod.shim.exec("a", start).await.unwrap();
        eventually("all of them run", || cgroup.pids().unwrap().len() > 5).await;
        drop(exec);
        eventually("only the init is left", || cgroup.pids().unwrap().len() == 1).await;
    }
    eventually("all is reaped", || pod.children().len() == 1).await;
}

/// The names of what the test below tells its own client.
const SOCKET: &str = "PODBAY_TEST_SOCKET";

async fn a_command_dies_with_the_client_that_began_it(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let cgroup = pod.cgroup("a");
    let mut client = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "as_a_client"])
        .env(SOCKET, pod.dir.join("shim.sock"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the command runs", || cgroup.pids().unwrap().len() == 2).await;
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("it is gone", || cgroup.pids().unwrap().len() == 1).await;
}

#[tokio::test]
#[ignore = "it is the client of the test above, and killed by it"]
async fn as_a_client() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let shim = Shim::new(std::path::PathBuf::from(socket));
    let exec = shim.exec("a", piped(&["sleep", "777"])).await.unwrap();
    exec.wait(Some(SOON)).await.unwrap();
}

async fn a_command_dies_with_its_container(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let mut exec = pod.shim.exec("a", piped(&["sleep", "777"])).await.unwrap();
    let mut other = pod.shim.exec("a", on_terminal(&["sleep", "777"])).await.unwrap();
    pod.shim.kill("a", 9, false, SOON).await.unwrap();
    assert_eq!((end(&exec).await, end(&other).await), (137, 137));
    assert_eq!(whole(exec.streams.stdout.take().unwrap()).await, b"");
    assert_eq!(whole(other.streams.terminal.take().unwrap()).await, b"");
    assert_eq!(pod.wait("a").await.code, 137);
    let dead = pod.shim.exec("a", piped(&["true"])).await.unwrap_err();
    assert_eq!(dead.class(), Class::FailedPrecondition);
}

async fn a_command_that_left_a_child_has_ended_all_the_same(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let mut exec =
        pod.shim.exec("a", piped(&["sh", "-c", "sleep 777 & echo hi; exit 3"])).await.unwrap();
    assert_eq!(end(&exec).await, 3);
    let screen = Source::new(exec.streams.stdout.take().unwrap()).unwrap();
    assert_eq!(hear(&screen, 3).await, "hi\n");
    drop(exec);
    // What was asked before this is done by now.
    pod.shim.state("a", SOON).await.unwrap();
    assert_eq!(pod.cgroup("a").pids().unwrap().len(), 2, "what it has left behind is left alone");
}

async fn what_cannot_be_begun_is_a_clear_error(runtime: &str) {
    let pod = Pod::start(runtime);
    let unknown = pod.shim.exec("a", piped(&["true"])).await.unwrap_err();
    assert_eq!(unknown.class(), Class::NotFound);
    sleeping(&pod).await;
    for start in [piped(&["no-such-program"]), on_terminal(&["no-such-program"])] {
        let error = pod.shim.exec("a", start).await.unwrap_err();
        assert!(error.to_string().contains("executable file not found in $PATH"), "{error}");
        assert_eq!(error.class(), Class::FailedPrecondition);
    }
    assert_eq!(pod.shim.exec("a", piped(&[])).await.unwrap_err().class(), Class::InvalidArgument);
    eventually("all is reaped", || pod.children().len() == 1).await;
}

async fn many_commands_leave_nothing_behind(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let fds = || fs::read_dir(format!("/proc/{}/fd", pod.pid())).unwrap().count();
    let left = || (fds(), pod.children().len(), pod.cgroup("a").pids().unwrap().len());
    pod.shim.state("a", SOON).await.unwrap();
    let before = left();
    for n in 0..50 {
        let start = match n % 5 {
            0 => on_terminal(&["true"]),
            1 => on_terminal(&["sleep", "777"]),
            2 => piped(&["sleep", "777"]),
            3 => piped(&["no-such-program"]),
            _ => piped(&["true"]),
        };
        match (pod.shim.exec("a", start).await, n % 5) {
            (Ok(exec), 0 | 4) => assert_eq!(end(&exec).await, 0),
            (Ok(exec), 1 | 2) => drop(exec),
            (Err(_), 3) => {}
            (result, _) => panic!("{result:?}"),
        }
    }
    eventually("nothing is left", || left() == before).await;
    assert_eq!(pod.threads(), 1);
    let devpts = fs::read_dir(format!("/proc/{}/root/dev/pts", pod.init("a").await)).unwrap();
    assert_eq!(devpts.count(), 1, "only ptmx");
}

/// What our client never does: it begins a command, and says nothing more.
async fn begin(pod: &Pod, name: &str) -> supervisor::HandOver {
    let request = supervisor::ExecRequest {
        id: "a".to_owned(),
        exec_id: name.to_owned(),
        args: strings(&["sleep", "777"]),
        ..Default::default()
    };
    let client = SupervisorClient::new(pod.line().await);
    client.exec(ttrpc::context::Context::default(), &request).await.unwrap()
}

async fn a_command_is_killed_by_its_name(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let (one, _two) = (begin(&pod, "one").await, begin(&pod, "two").await);
    assert_eq!((one.token.len(), one.socket.as_str()), (32, pod.socket().to_str().unwrap()));
    let kill = task::KillRequest {
        id: "a".to_owned(),
        exec_id: "one".to_owned(),
        signal: 9,
        ..Default::default()
    };
    let client = TaskClient::new(pod.line().await);
    client.kill(ttrpc::context::Context::default(), &kill).await.unwrap();
    let cgroup = pod.cgroup("a");
    eventually("it is gone", || cgroup.pids().unwrap().len() == 2).await;
}

#[tokio::test]
async fn a_command_that_nobody_takes_is_killed_after_a_while() {
    let pod = Pod::start("");
    sleeping(&pod).await;
    let out = begin(&pod, "one").await;
    let cgroup = pod.cgroup("a");
    let began = std::time::Instant::now();
    eventually("it is gone", || cgroup.pids().unwrap().len() == 1).await;
    assert!(began.elapsed() > Duration::from_secs(8), "{:?}", began.elapsed());
    let mut late = tokio::net::UnixStream::connect(&out.socket).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut late, out.token.as_bytes()).await.unwrap();
    let receive = || shim_api::Streams::receive(late.as_fd());
    assert!(late.async_io(tokio::io::Interest::READABLE, receive).await.is_err());
}

#[tokio::test]
async fn a_commands_terminal_is_its_users_in_a_user_namespace_too() {
    let pod = Pod::start("");
    let mut bundle = pod.bundle("a", &["sleep", "1000"]);
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    pod.run(&bundle).await;
    let script = "echo mine > $(tty); ls -ln $(tty) | tr -s ' ' | grep -o ' 1 [0-9]*'; id -u";
    let mut exec = pod.shim.exec("a", on_terminal(&["sh", "-c", script])).await.unwrap();
    let told = whole(exec.streams.terminal.take().unwrap()).await;
    assert_eq!(String::from_utf8(told).unwrap(), "mine\r\n 1 1000\r\n1000\r\n");
    assert_eq!(end(&exec).await, 0);
}

#[tokio::test]
async fn what_is_no_terminal_maker_is_not_taken_for_one() {
    let pod = Pod::start("");
    let mut bundle = pod.bundle("a", &["sleep", "1000"]);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/dev/pts");
    pod.run(&bundle).await;
    let start = || on_terminal(&["true"]);
    let none = pod.shim.exec("a", start()).await.unwrap_err();
    assert!(none.to_string().contains("/dev/pts/ptmx"), "{none}");
    pod.say("a", &["sh", "-c", "mkdir -p /dev/pts; mkfifo /dev/pts/ptmx"]).await;
    let fifo = pod.shim.exec("a", start()).await.unwrap_err();
    assert!(fifo.to_string().contains("something else"), "{fifo}");
}
