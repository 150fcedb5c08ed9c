//! A container's life under a real shim, with each runtime: what it writes, how it ends, what is
//! left of it. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use common::{Bundle, Pod, SOON, until};
use names::Class;
use serde_json::json;
use shim_api::{Exit, Life, Shim, Stats, Status};

with_each_runtime! {
    a_container_lives_and_dies_and_all_of_it_is_on_record
    long_lines_and_both_streams_are_logged_exactly
    a_log_is_reopened_under_way
    a_signal_reaches_the_init_and_only_its_death_is_an_end
    a_container_out_of_memory_is_told_as_such
    a_program_that_is_not_there_fails_the_start_clearly
    a_container_that_cannot_be_made_leaves_nothing
    a_seccomp_profile_that_cannot_be_applied_is_an_error
    a_container_of_a_shared_pid_namespace_leaves_no_process
    limits_are_changed_and_counted
    a_terminal_goes_to_the_log
    a_dead_client_is_no_matter
    deleting_kills_and_works_at_any_time
    one_thread_is_enough
}

async fn a_container_lives_and_dies_and_all_of_it_is_on_record(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = pod.bundle("a", &["sh", "-c", "echo out; echo err >&2; printf tail; exit 7"]);
    let pid = pod.create(&bundle).await.unwrap();
    let state = pod.shim.state("a", SOON).await.unwrap();
    assert_eq!((state.status, state.pid, state.exit), (Status::Created, pid, None));
    assert_eq!(pod.create(&bundle).await.unwrap_err().class(), Class::AlreadyExists);

    pod.shim.start("a", SOON).await.unwrap();
    let exit = pod.wait("a").await;
    assert_eq!((exit.code, exit.oom), (7, false));
    assert_eq!(Exit::read(&bundle.dir).unwrap(), Some(exit));
    assert_eq!(bundle.logged("stdout"), "out\ntail");
    assert_eq!(bundle.logged("stderr"), "err\n");
    let state = pod.shim.state("a", SOON).await.unwrap();
    assert_eq!((state.status, state.exit), (Status::Stopped, Some(exit)));
    assert_eq!(pod.shim.list(SOON).await.unwrap(), [state]);
    let again = pod.shim.start("a", SOON).await.unwrap_err();
    assert_eq!(again.class(), Class::FailedPrecondition, "{again}");

    assert_eq!(pod.shim.delete("a", SOON).await.unwrap(), Some(exit));
    assert_eq!(pod.shim.delete("a", SOON).await.unwrap(), None);
    assert_eq!(pod.shim.state("a", SOON).await.unwrap_err().class(), Class::NotFound);
    assert_eq!(pod.shim.wait("a").await.unwrap_err().class(), Class::NotFound);
    assert!(!pod.cgroup("a").exists());
    assert!(!fs::exists(format!("/sys/fs/cgroup/unified{}/a", pod.cgroup)).unwrap());
    assert_eq!(pod.children(), [""; 0]);
    pod.run_out(&bundle).await;
}

async fn long_lines_and_both_streams_are_logged_exactly(runtime: &str) {
    let pod = Pod::start(runtime);
    let script = "head -c 50000 /dev/zero | tr '\\0' x; echo; echo; \
        seq 1 3000 & seq 5000 8000 >&2 & wait; head -c 16384 /dev/zero | tr '\\0' y";
    let bundle = pod.bundle("a", &["sh", "-c", script]);
    assert_eq!(pod.run_out(&bundle).await.code, 0);
    let numbers = |from: u32, to: u32| (from..=to).map(|n| format!("{n}\n")).collect::<String>();
    let out = format!("{}\n\n{}{}", "x".repeat(50_000), numbers(1, 3000), "y".repeat(16_384));
    assert!(bundle.logged("stdout") == out);
    assert!(bundle.logged("stderr") == numbers(5000, 8000));
}

async fn a_log_is_reopened_under_way(runtime: &str) {
    let pod = Pod::start(runtime);
    let script = "echo one; while [ ! -e /go ]; do sleep 0.01; done; echo two";
    let bundle = pod.bundle("a", &["sh", "-c", script]);
    pod.run(&bundle).await;
    until("the first line", || bundle.logged("stdout") == "one\n");
    let rotated = bundle.dir.join("0.log.1");
    fs::rename(bundle.log(), &rotated).unwrap();
    fs::create_dir(bundle.log()).unwrap();
    assert!(pod.shim.reopen_log("a", SOON).await.is_err(), "a directory is no log");
    fs::remove_dir(bundle.log()).unwrap();
    pod.shim.reopen_log("a", SOON).await.unwrap();
    fs::write(bundle.dir.join("rootfs/go"), "").unwrap();
    assert_eq!(pod.wait("a").await.code, 0);
    assert_eq!(bundle.logged("stdout"), "two\n");
    assert!(fs::read_to_string(rotated).unwrap().ends_with(" stdout F one\n"));
    let late = pod.shim.reopen_log("a", SOON).await.unwrap_err();
    assert_eq!(late.class(), Class::FailedPrecondition);
}

async fn a_signal_reaches_the_init_and_only_its_death_is_an_end(runtime: &str) {
    let pod = Pod::start(runtime);
    let script = "trap 'echo winch' WINCH; trap 'exit 3' TERM; echo ready; \
        while :; do sleep 0.02; done";
    let bundle = pod.bundle("a", &["sh", "-c", script]);
    pod.run(&bundle).await;
    until("it is ready", || bundle.logged("stdout") == "ready\n");
    pod.shim.kill("a", 28, false, SOON).await.unwrap();
    until("the signal was seen", || bundle.logged("stdout") == "ready\nwinch\n");
    assert_eq!(pod.shim.state("a", SOON).await.unwrap().status, Status::Running);
    pod.shim.kill("a", 15, false, SOON).await.unwrap();
    assert_eq!(pod.wait("a").await.code, 3);
    let dead = pod.shim.kill("a", 15, false, SOON).await.unwrap_err();
    assert_eq!(dead.class(), Class::FailedPrecondition);
    let bad = pod.shim.kill("a", 99, false, SOON).await.unwrap_err();
    assert_eq!(bad.class(), Class::InvalidArgument);

    let bundle = pod.bundle("b", &["sleep", "100"]);
    pod.run(&bundle).await;
    pod.shim.kill("b", 9, true, SOON).await.unwrap();
    assert_eq!(pod.wait("b").await.code, 137);
}

async fn a_container_out_of_memory_is_told_as_such(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 20 << 20}});
    let exit = pod.run_out(&bundle).await;
    assert_eq!((exit.code, exit.oom), (137, true));
    assert!(Exit::read(&bundle.dir).unwrap().unwrap().oom);
}

async fn a_program_that_is_not_there_fails_the_start_clearly(runtime: &str) {
    let pod = Pod::start(runtime);
    for (id, program, why) in [
        ("a", "no-such-program", "executable file not found in $PATH"),
        ("b", "/no/such/program", "no such file or directory"),
        ("c", "/etc/passwd", "permission denied"),
    ] {
        let bundle = pod.bundle(id, &[program]);
        let created = pod.create(&bundle).await;
        // runc finds out when the container is created.
        let error = match created {
            Err(error) => error,
            Ok(_) => pod.shim.start(id, SOON).await.unwrap_err(),
        };
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.class(), Class::FailedPrecondition, "{error}");
        pod.shim.delete(id, SOON).await.unwrap();
        assert!(!pod.cgroup(id).exists());
    }
    assert_eq!(pod.children(), [""; 0]);
}

async fn a_container_that_cannot_be_made_leaves_nothing(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["true"]);
    let mount = json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["rbind"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    let error = pod.create(&bundle).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/source"), "{error}");
    assert_eq!(pod.shim.list(SOON).await.unwrap(), []);
    assert!(!pod.cgroup("a").exists());
    until("what was half made is reaped", || pod.children().is_empty());
    for id in ["", "..", "a/b", ".hidden"] {
        let odd = Bundle { id: id.to_owned(), ..pod.bundle("b", &["true"]) };
        let odd = pod.create(&odd).await.unwrap_err();
        assert_eq!(odd.class(), Class::InvalidArgument, "{odd}");
        fs::remove_dir_all(pod.dir.join("containers/b")).unwrap();
    }
    // The same name is free again.
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    assert_eq!(pod.run_out(&bundle).await.code, 0);
}

async fn a_seccomp_profile_that_cannot_be_applied_is_an_error(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["true"]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
    let error = pod.create(&bundle).await.unwrap_err();
    assert!(error.to_string().contains("SCMP_ACT_NOTIFY"), "{error}");
    assert_eq!(pod.shim.list(SOON).await.unwrap(), []);
}

async fn a_container_of_a_shared_pid_namespace_leaves_no_process(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["sh", "-c", "sleep 1000 & echo $!; exit 5"]);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    pod.run(&bundle).await;
    let began = Instant::now();
    assert_eq!(pod.wait("a").await.code, 5);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let sleeper = bundle.logged("stdout").trim().to_owned();
    until("the sleeper is gone", || !fs::exists(format!("/proc/{sleeper}")).unwrap());
    assert!(pod.cgroup("a").pids().unwrap().is_empty());
}

async fn limits_are_changed_and_counted(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = pod.bundle("a", &["sleep", "100"]);
    pod.create(&bundle).await.unwrap();
    let resources =
        json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 512}, "pids": {"limit": 33}});
    let resources = serde_json::from_value(resources).unwrap();
    pod.shim.update("a", &resources, SOON).await.unwrap();
    pod.shim.start("a", SOON).await.unwrap();
    let stats = pod.cgroup("a").stats().unwrap();
    assert_eq!((stats.memory_limit, stats.pids_limit), (64 << 20, 33));
    let metrics = match pod.shim.stats("a", SOON).await.unwrap() {
        Stats::V1(metrics) => (metrics.pids.current, metrics.memory.usage.limit),
        Stats::V2(metrics) => (metrics.pids.current, metrics.memory.usage_limit),
    };
    assert_eq!(metrics, (1, 64 << 20));
}

async fn a_terminal_goes_to_the_log(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["sh", "-c", "tty; echo err >&2; exit 4"]);
    bundle.config["process"]["terminal"] = json!(true);
    let odd = pod.create(&bundle).await.unwrap_err();
    assert_eq!(odd.class(), Class::InvalidArgument, "config and request must agree");
    bundle.terminal = true;
    assert_eq!(pod.run_out(&bundle).await.code, 4);
    let text = bundle.logged("stdout");
    assert!(text == "/dev/pts/0\r\nerr\r\n" || text == "/dev/console\r\nerr\r\n", "{text:?}");
    let tty = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("tty-");
    assert!(!fs::read_dir(&pod.dir).unwrap().any(|entry| tty(entry.unwrap())));
}

async fn a_dead_client_is_no_matter(runtime: &str) {
    let mut pod = Pod::start(runtime);
    let script = "echo one; while [ ! -e /go ]; do sleep 0.01; done; echo two; exit 9";
    let bundle = pod.bundle("a", &["sh", "-c", script]);
    let pid = pod.run(&bundle).await;
    pod.shim = Shim::new(pod.shim.address().clone());
    let list = pod.shim.list(SOON).await.unwrap();
    assert_eq!((list[0].id.as_str(), list[0].status, list[0].pid), ("a", Status::Running, pid));
    pod.shim = Shim::new(PathBuf::from("/nowhere"));
    fs::write(bundle.dir.join("rootfs/go"), "").unwrap();
    until("the end is on record", || Exit::read(&bundle.dir).unwrap().is_some());
    assert_eq!(Exit::read(&bundle.dir).unwrap().unwrap().code, 9);
    assert_eq!(bundle.logged("stdout"), "one\ntwo\n", "the log was whole before that");
    let life = Life::read(&pod.dir).unwrap().unwrap();
    assert!(life.pid == pod.pid() && life.lasts().unwrap());
}

async fn deleting_kills_and_works_at_any_time(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = pod.bundle("a", &["sh", "-c", "trap '' TERM; sleep 1000"]);
    let pid = pod.create(&bundle).await.unwrap();
    let exit = pod.shim.delete("a", SOON).await.unwrap().unwrap();
    assert_eq!(exit.code, 137, "it was created, and did not run");
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());

    let pid = pod.run(&bundle).await;
    let wait = pod.shim.clone();
    let wait = tokio::spawn(async move { wait.wait("a").await });
    // What was asked before this is being done by now.
    pod.shim.state("a", SOON).await.unwrap();
    let (one, other) = (pod.shim.delete("a", SOON), pod.shim.delete("a", SOON));
    let (one, other) = tokio::join!(one, other);
    assert_eq!(one.unwrap().or_else(|| other.unwrap()).unwrap().code, 137);
    assert_eq!(wait.await.unwrap().unwrap().code, 137);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    assert_eq!(pod.shim.delete("never", SOON).await.unwrap(), None);
    assert!(!pod.cgroup("a").exists());
}

async fn one_thread_is_enough(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = pod.bundle("a", &["sleep", "100"]);
    pod.run(&bundle).await;
    pod.exec("a", &["true"]).await.unwrap();
    pod.shim.update("a", &serde_json::from_value(json!({})).unwrap(), SOON).await.unwrap();
    pod.shim.delete("a", SOON).await.unwrap();
    assert_eq!(pod.threads(), 1);
}
