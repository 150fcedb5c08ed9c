//! Commands in a container under a real shim, with each runtime: what they give back, how they
//! end, and that they are as confined as the container. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Bundle, Pod, SOON, until};
use names::Class;
use serde_json::json;
use shim_api::{EXEC_OUTPUT_LIMIT, ExecSync, Status};

with_each_runtime! {
    a_command_gives_its_output_and_status
    a_command_that_takes_too_long_is_killed_with_its_children
    a_command_that_is_not_there_is_a_clear_error_and_leaves_nothing
    output_beyond_the_limit_is_dropped
    a_child_that_holds_the_output_delays_the_answer_for_two_seconds
    a_command_nobody_waits_for_is_killed
    a_command_needs_a_running_container
    a_command_is_as_confined_as_the_container
    a_command_runs_as_the_containers_user
    commands_run_side_by_side
    no_descriptor_of_the_host_is_open_in_a_container
    a_working_directory_outside_is_refused
}

async fn sleeping(pod: &Pod) -> Bundle {
    let bundle = pod.bundle("a", &["sleep", "1000"]);
    pod.run(&bundle).await;
    bundle
}

/// Everything that a container's processes are confined by, as they see it.
const CONFINEMENT: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)' /proc/self/status; \
    mkdir /forbidden 2>&1; id -u; ls -l /proc/self/ns | grep -v time_ | tr -s ' ' | grep -o '[a-z_]* -> .*'; \
    cat /proc/self/oom_score_adj /proc/self/cgroup; grep open /proc/self/limits; env; pwd; umask";

async fn a_command_gives_its_output_and_status(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let output = pod.exec("a", &["sh", "-c", "echo $GREETING; echo err >&2; exit 42"]).await;
    let output = output.unwrap();
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"hello\n"[..], &b"err\n"[..])
    );
    assert_eq!(output.code, 42);
    assert_eq!(pod.exec("a", &["sh", "-c", "kill -9 $$"]).await.unwrap().code, 137);
    assert_eq!(pod.exec("a", &["cat"]).await.unwrap().code, 0, "stdin is empty");
}

async fn a_command_that_takes_too_long_is_killed_with_its_children(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let script = "(sleep 776 &); sleep 777 & (sh -c 'sleep 778; true'); wait";
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let began = Instant::now();
    let timeout = Duration::from_millis(300);
    let exec = ExecSync { args, timeout: Some(timeout) };
    let late = pod.shim.exec_sync("a", exec).await.unwrap_err();
    assert_eq!(late.class(), Class::DeadlineExceeded, "{late}");
    assert!(began.elapsed() < timeout + Duration::from_secs(1), "{:?}", began.elapsed());
    until("only the container's init is left", || pod.cgroup("a").pids().unwrap().len() == 1);
    assert_eq!(pod.shim.state("a", SOON).await.unwrap().status, Status::Running);
    until("all is reaped", || pod.children().len() == 1);
}

async fn a_command_that_is_not_there_is_a_clear_error_and_leaves_nothing(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    for (program, why) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
    ] {
        let error = pod.exec("a", &[program]).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.class(), Class::FailedPrecondition);
    }
    assert_eq!(pod.exec("a", &[]).await.unwrap_err().class(), Class::InvalidArgument);
    until("all is reaped", || pod.children().len() == 1);
    assert_eq!(pod.say("a", &["echo", "still"]).await, "still\n");
    pod.shim.kill("a", 9, false, SOON).await.unwrap();
    assert_eq!(pod.wait("a").await.code, 137, "nothing that failed keeps its pid namespace alive");
}

async fn output_beyond_the_limit_is_dropped(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let script = "head -c 20000000 /dev/zero; echo end >&2";
    let output = pod.exec("a", &["sh", "-c", script]).await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.as_slice()), (EXEC_OUTPUT_LIMIT, &b"end\n"[..]));
    assert_eq!(output.code, 0);
}

async fn a_child_that_holds_the_output_delays_the_answer_for_two_seconds(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let began = Instant::now();
    assert_eq!(pod.say("a", &["sh", "-c", "sleep 1000 & echo hi"]).await, "hi\n");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
}

async fn a_command_nobody_waits_for_is_killed(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let args = ["sleep", "777"].map(str::to_owned).to_vec();
    let shim = pod.shim.clone();
    let exec = async move { shim.exec_sync("a", ExecSync { args, timeout: None }).await };
    let exec = tokio::spawn(exec);
    let cgroup = pod.cgroup("a");
    until_async("it runs", || cgroup.pids().unwrap().len() == 2).await;
    exec.abort();
    until_async("it is killed", || cgroup.pids().unwrap().len() == 1).await;
}

/// Lets other tasks run while it waits.
async fn until_async(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn a_command_needs_a_running_container(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = pod.bundle("a", &["true"]);
    assert_eq!(pod.exec("a", &["true"]).await.unwrap_err().class(), Class::NotFound);
    pod.create(&bundle).await.unwrap();
    assert_eq!(pod.exec("a", &["true"]).await.unwrap_err().class(), Class::FailedPrecondition);
    pod.shim.start("a", SOON).await.unwrap();
    pod.wait("a").await;
    assert_eq!(pod.exec("a", &["true"]).await.unwrap_err().class(), Class::FailedPrecondition);
}

async fn a_command_is_as_confined_as_the_container(runtime: &str) {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    });
    for (id, no_new_privileges) in [("a", json!(true)), ("b", json!(null)), ("c", json!(false))] {
        let pod = Pod::start(runtime);
        let script = format!("{CONFINEMENT}; exec sleep 1000");
        let mut bundle = pod.bundle(id, &["sh", "-c", &script]);
        bundle.config["linux"]["seccomp"] = seccomp.clone();
        bundle.config["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 200}]);
        let nnp = no_new_privileges.clone();
        bundle.config["process"]["noNewPrivileges"] = nnp;
        if no_new_privileges.is_null() {
            bundle.config["process"].as_object_mut().unwrap().remove("noNewPrivileges");
        }
        pod.run(&bundle).await;
        until("it has told", || bundle.logged("stdout").ends_with("0022\n"));
        let init = bundle.logged("stdout");
        let command = pod.say(id, &["sh", "-c", CONFINEMENT]).await;
        assert_eq!(init, command);
        assert!(init.contains("Permission denied"), "mkdir is not allowed: {init}");
        let wanted =
            if no_new_privileges == json!(true) { "NoNewPrivs:\t1" } else { "NoNewPrivs:\t0" };
        assert!(init.contains(wanted), "{init}");
        assert!(init.contains("SigBlk:\t0000000000000000\n"), "{init}");
        assert_eq!(ignored(&init) & (1 << (libc::SIGPIPE - 1)), 0, "{init}");
        assert!(init.contains("Seccomp:\t2") && init.contains("\n500\n"), "{init}");
    }
}

/// The signals that a process ignores, as its status has them.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    u64::from_str_radix(mask, 16).unwrap()
}

async fn a_command_runs_as_the_containers_user(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["sleep", "1000"]);
    let groups = [1000, 27];
    bundle.config["process"]["user"] =
        json!({"uid": 1000, "gid": 1000, "additionalGids": groups, "umask": 0o077});
    bundle.config["process"]["cwd"] = json!("/tmp");
    let env = bundle.config["process"]["env"].as_array_mut().unwrap();
    env.retain(|variable| variable != "HOME=/root");
    pod.run(&bundle).await;
    let script =
        "id -u; id -g; id -G; pwd; echo $HOME; echo x > /dev/stderr; grep CapEff /proc/self/status";
    let said = pod.say("a", &["sh", "-c", script]).await;
    let wanted = "1000\n1000\n1000 27\n/tmp\n/home/u\nCapEff:\t0000000000000000\n";
    assert_eq!(said, wanted);
    let home = pod.say("a", &["sh", "-c", "tr '\\0' '\\n' < /proc/1/environ | grep HOME"]).await;
    assert_eq!(home, "HOME=/home/u\n");
    // runc 1.1 does not give the umask to a command.
    if runtime.is_empty() {
        assert_eq!(pod.say("a", &["sh", "-c", "umask"]).await, "0077\n");
    }
}

async fn commands_run_side_by_side(runtime: &str) {
    let pod = Pod::start(runtime);
    sleeping(&pod).await;
    let execs = (0..8).map(|n| {
        let (shim, args) = (pod.shim.clone(), vec!["echo".to_owned(), n.to_string()]);
        tokio::spawn(async move {
            let exec = ExecSync { args, timeout: Some(SOON) };
            (n, shim.exec_sync("a", exec).await.unwrap())
        })
    });
    for exec in execs.collect::<Vec<_>>() {
        let (n, output) = exec.await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{n}\n"));
    }
    until("all is reaped", || pod.children().len() == 1);
    assert_eq!(pod.threads(), 1);
}

async fn no_descriptor_of_the_host_is_open_in_a_container(runtime: &str) {
    let pod = Pod::start(runtime);
    let list = "ls -l /proc/self/fd | grep -o ' [0-9]* -> .*'";
    let bundle = pod.bundle("a", &["sh", "-c", &format!("{list}; exec sleep 1000")]);
    pod.run(&bundle).await;
    until("it has told", || bundle.logged("stdout").lines().count() >= 3);
    for told in [bundle.logged("stdout"), pod.say("a", &["sh", "-c", list]).await] {
        // The directory that ls itself reads is closed before its link is read.
        let fds: Vec<&str> =
            told.lines().map(|line| line.trim().split(' ').next().unwrap()).collect();
        assert_eq!(fds, ["0", "1", "2"], "{told}");
        assert!(told.contains("0 -> /dev/null"), "{told}");
    }
}

async fn a_working_directory_outside_is_refused(runtime: &str) {
    let pod = Pod::start(runtime);
    for fd in 3..20 {
        let id = format!("a{fd}");
        let mut bundle = pod.bundle(&id, &["pwd"]);
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{fd}"));
        let started = match pod.create(&bundle).await {
            Ok(_) => pod.shim.start(&id, SOON).await,
            Err(error) => Err(error),
        };
        if started.is_ok() {
            pod.wait(&id).await;
            let told = bundle.logged("stdout");
            let host = fs::canonicalize(&pod.dir).unwrap();
            assert!(
                !told.contains("unreachable") && !told.contains(host.to_str().unwrap()),
                "{told}"
            );
        }
        pod.shim.delete(&id, SOON).await.unwrap();
        fs::remove_dir_all(&bundle.dir).unwrap();
    }
}
