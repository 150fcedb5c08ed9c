//! Containers, from their creation to their removal, and what can be asked of them.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use cri_proto::v1;
use e2e::{
    Daemon, Options, container, eventually, is_true, lines, mount, refused, security, sharing,
    shell, sleeps, text,
};
use tonic::Code;

/// A daemon with one pod, by the handler. None, and a word about it, where that cannot be.
async fn pod_by(handler: &str) -> Option<(Daemon, String)> {
    if handler == "runc" && !e2e::has("runc") {
        return None;
    }
    let node = Daemon::start(Options::default()).await?;
    let pod = node.cri().run_pod_by(&node.pod("web"), handler).await.expect("a pod can be run");
    Some((node, pod))
}

/// The same, of a pod whose containers share their processes.
async fn sharing_pod_by(handler: &str) -> Option<(Daemon, String)> {
    let (node, _) = pod_by(handler).await?;
    let config = sharing(node.pod("sharing"));
    let pod = node.cri().run_pod_by(&config, handler).await.expect("a pod can be run");
    Some((node, pod))
}

e2e::by_handlers! {
    { by_the_built_in_runtime: "podbay", with_a_pause: "pause", by_runc: "runc" }
    [a_container_ends_as_its_process_does,
    a_container_is_asked_to_end_and_then_made_to,
    a_container_starts_once,
    commands_run_in_a_container,
    a_command_that_takes_too_long_is_killed,
    output_becomes_lines_of_the_log,
    a_container_that_takes_too_much_memory_is_told_of_as_that,
    limits_can_be_changed_while_it_runs,
    a_root_filesystem_can_be_read_only,
    folders_of_the_host_are_seen_as_they_were_asked_for,
    a_process_is_who_it_is_to_be,
    processes_are_shared_as_far_as_they_are_to_be,
    what_cannot_be_run_is_told_and_leaves_nothing,
    mounts_pass_on_as_far_as_they_are_to,
    a_container_that_runs_can_be_removed,
    a_container_that_is_frozen_can_be_stopped]
}

async fn a_container_ends_as_its_process_does(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let kill = |signal: &str| format!("kill -{signal} $$; sleep 100");
    let ends = [
        ("good", "exit 0".to_owned(), 0, "Completed"),
        ("bad", "exit 3".to_owned(), 3, "Error"),
        ("last", "exit 255".to_owned(), 255, "Error"),
    ];
    for (name, line, code, reason) in ends {
        let id = cri.create(&pod, &shell(name, &line)).await.unwrap();
        let status = cri.container(&id).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerCreated);
        assert_eq!((status.started_at, status.finished_at), (0, 0));
        assert!(status.created_at > 0 && !status.image_ref.is_empty());
        assert_eq!(status.image_id, cri.image(e2e::IMAGE).await.unwrap().unwrap().id);
        cri.start(&id).await.unwrap();
        let status = cri.ended(&id).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
        assert!(status.started_at >= status.created_at, "{name}");
        assert!(status.finished_at >= status.started_at, "{name}");
        assert_eq!(Path::new(&status.log_path), node.log_of("web", name));
    }
    // The first process of a pid namespace does not hear its own signals: here it is not the first.
    let pod = cri.run_pod_by(&sharing(node.pod("sharing")), handler).await.unwrap();
    for (signal, code) in [("KILL", 137), ("TERM", 143)] {
        let mut config = shell(&format!("by-{}", signal.to_lowercase()), &kill(signal));
        let options = security(&mut config).namespace_options.get_or_insert_default();
        options.pid = v1::NamespaceMode::Pod.into();
        let id = cri.launch(&pod, &config).await.unwrap();
        let status = cri.ended(&id).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (code, "Error"), "{signal}");
    }
}

async fn a_container_is_asked_to_end_and_then_made_to(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let heeds = "trap 'echo heard; exit 7' TERM; trap 'echo other; exit 8' USR1; echo up; \
                 while true; do usleep 20000; done";
    let up = async |name: &str| {
        let log = node.log_of("web", name);
        eventually("it is up", async || {
            is_true(log.exists() && text(&log, "stdout").contains("up"))
        })
        .await;
    };
    let id = cri.launch(&pod, &shell("heeds", heeds)).await.unwrap();
    up("heeds").await;
    cri.stop(&id, 20).await.unwrap();
    let status = cri.container(&id).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerExited, "it has ended on return");
    assert_eq!(status.exit_code, 7);
    cri.stop(&id, 20).await.expect("what has ended can be stopped");
    cri.stop("0123456789abcdef", 20).await.expect("what never was can be stopped");

    let mut config = shell("other", heeds);
    config.stop_signal = v1::Signal::Sigusr1.into();
    let id = cri.launch(&pod, &config).await.unwrap();
    up("other").await;
    assert_eq!(cri.container(&id).await.unwrap().stop_signal(), v1::Signal::Sigusr1);
    cri.stop(&id, 20).await.unwrap();
    assert_eq!(cri.container(&id).await.unwrap().exit_code, 8);

    let deaf = "trap '' TERM; echo up; while true; do usleep 20000; done";
    let id = cri.launch(&pod, &shell("deaf", deaf)).await.unwrap();
    up("deaf").await;
    let begun = Instant::now();
    cri.stop(&id, 1).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(cri.container(&id).await.unwrap().exit_code, 137);

    let id = cri.launch(&pod, &shell("now", deaf)).await.unwrap();
    cri.stop(&id, 0).await.unwrap();
    assert_eq!(cri.container(&id).await.unwrap().exit_code, 137);
}

async fn a_container_starts_once(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let config = sleeps("once");
    let id = cri.launch(&pod, &config).await.unwrap();
    refused(cri.start(&id).await, Code::FailedPrecondition);
    refused(cri.create(&pod, &config).await, Code::AlreadyExists);
    cri.stop(&id, 0).await.unwrap();
    refused(cri.start(&id).await, Code::FailedPrecondition);
    refused(cri.exec(&id, &["true"], 5).await, Code::FailedPrecondition);
    cri.remove(&id).await.unwrap();
    refused(cri.start(&id).await, Code::NotFound);
    refused(cri.container(&id).await, Code::NotFound);
    cri.remove(&id).await.expect("what was removed can be removed");
    let created = cri.create(&pod, &config).await.unwrap();
    assert_eq!(cri.create(&pod, &config).await.unwrap(), created, "a retry gets the same");
}

async fn commands_run_in_a_container(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let mut config = sleeps("c");
    config.envs = vec![v1::KeyValue { key: "WORD".into(), value: b"said".to_vec() }];
    config.working_dir = "/www".into();
    let id = cri.launch(&pod, &config).await.unwrap();
    let line = "echo out; echo err >&2; exit 5";
    let answer = cri.exec(&id, &["sh", "-c", line], 10).await.unwrap();
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(answer.exit_code, 5);
    let seen = cri.shell(&id, "echo $WORD $OF_IMAGE; pwd; ls /proc/self/fd").await.unwrap();
    assert!(seen.starts_with("said yes\n/www\n0\n1\n2\n3"), "{seen}");
    assert_eq!(seen.lines().count(), 6, "no descriptor but those of ls itself: {seen}");
    assert_eq!(cri.exec(&id, &["false"], 0).await.unwrap().exit_code, 1);

    let missing = cri.exec(&id, &["/no/such/program"], 10).await;
    let told = match missing {
        Ok(answer) => matches!(answer.exit_code, 126..=128),
        Err(status) => status.code() != Code::DeadlineExceeded,
    };
    assert!(told, "a program that is not there is an error");
    refused(cri.exec(&id, &[], 10).await, Code::InvalidArgument);
    refused(cri.exec("0123456789abcdef", &["true"], 10).await, Code::NotFound);

    // What is too much for an answer, which has at most 16 MiB, is left out.
    let line = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 6";
    let much = cri.exec(&id, &["sh", "-c", line], 30).await.unwrap();
    assert_eq!(much.exit_code, 6);
    let length = much.stdout.len() + much.stderr.len();
    assert!((15 << 20..=16 << 20).contains(&length), "{length}");
}

async fn a_command_that_takes_too_long_is_killed(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let begun = Instant::now();
    refused(cri.exec(&id, &["sleep", "4242"], 1).await, Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let sleeps = |it: &e2e::Process| it.line.trim_end() == "sleep 4242" && !it.zombie;
    eventually("the command is gone", async || is_true(!e2e::processes().iter().any(sleeps))).await;

    let begun = Instant::now();
    let answer = cri.exec(&id, &["sh", "-c", "sleep 4343 & echo started"], 20).await.unwrap();
    assert_eq!((answer.exit_code, answer.stdout.as_slice()), (0, &b"started\n"[..]));
    assert!(begun.elapsed() < Duration::from_secs(15), "a grandchild that holds its output");
    assert_eq!(cri.shell(&id, "echo still here").await.unwrap(), "still here");
}

async fn output_becomes_lines_of_the_log(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let line = "echo first; echo second >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; \
                echo; printf 'no end'";
    let id = cri.launch(&pod, &shell("says", line)).await.unwrap();
    assert_eq!(cri.ended(&id).await.unwrap().exit_code, 0);
    let log = node.log_of("web", "says");
    assert_eq!(text(&log, "stderr"), "second\n");
    let long = "x".repeat(40_000);
    assert_eq!(text(&log, "stdout"), format!("first\n{long}\n\nno end"));
    let pieces = lines(&log).into_iter().filter(|line| line.text.starts_with(b"x"));
    let pieces: Vec<_> = pieces.map(|line| (line.text.len(), line.partial)).collect();
    assert_eq!(pieces, [(16_384, true), (16_384, true), (7_232, false)]);

    let mut quiet = sleeps("quiet");
    quiet.log_path = "of/its/own/0.log".into();
    let id = cri.launch(&pod, &quiet).await.unwrap();
    let log = node.place.logs().join("web/of/its/own/0.log");
    assert_eq!(lines(&log), [], "the file is there before anything is said");
    cri.remove(&id).await.unwrap();
    assert!(log.exists(), "it is the kubelet that removes logs");
}

async fn a_container_that_takes_too_much_memory_is_told_of_as_that(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let mut config = shell("eats", "head -c 200000000 /dev/zero | tail -n 1 | wc -c; exit 1");
    config.command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M"].map(String::from).into();
    let linux = config.linux.as_mut().unwrap();
    linux.resources = Some(v1::LinuxContainerResources {
        memory_limit_in_bytes: 15 << 20,
        memory_swap_limit_in_bytes: 15 << 20,
        ..Default::default()
    });
    let id = cri.launch(&pod, &config).await.unwrap();
    let status = cri.ended(&id).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

async fn limits_can_be_changed_while_it_runs(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let mut config = sleeps("c");
    let limits = |shares, memory| v1::LinuxContainerResources {
        cpu_shares: shares,
        memory_limit_in_bytes: memory,
        ..Default::default()
    };
    config.linux.as_mut().unwrap().resources = Some(limits(512, 64 << 20));
    let id = cri.create(&pod, &config).await.unwrap();
    let update = async |linux| {
        let container_id = id.clone();
        let linux = Some(linux);
        let request =
            v1::UpdateContainerResourcesRequest { container_id, linux, ..Default::default() };
        cri.runtime().update_container_resources(request).await.map(drop)
    };
    update(limits(256, 0)).await.expect("also before it is started");
    cri.start(&id).await.unwrap();
    let pid = cri.pid(&id).await.unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = |controller: &str| {
        let is = |line: &&str| line.split(':').nth(1).is_some_and(|it| it == controller);
        let path = groups.lines().find(is)?.rsplit(':').next()?;
        Some(Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')))
    };
    let (Some(cpu), Some(memory)) = (group("cpu"), group("memory")) else {
        return e2e::skip("this host has no cgroup v1");
    };
    let read = |file: std::path::PathBuf| fs::read_to_string(file).unwrap().trim().to_owned();
    assert_eq!(read(cpu.join("cpu.shares")), "256");
    assert_eq!(read(memory.join("memory.limit_in_bytes")), (64 << 20).to_string());
    update(limits(0, 96 << 20)).await.unwrap();
    assert_eq!(read(cpu.join("cpu.shares")), "256");
    assert_eq!(read(memory.join("memory.limit_in_bytes")), (96 << 20).to_string());
    let shown = cri.container(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((shown.cpu_shares, shown.memory_limit_in_bytes), (256, 96 << 20));

    let stats = v1::ContainerStatsRequest { container_id: id.clone() };
    let stats = cri.runtime().container_stats(stats).await.unwrap().into_inner().stats.unwrap();
    assert_eq!(stats.attributes.unwrap().id, id);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    let layer = stats.writable_layer.unwrap();
    assert!(layer.inodes_used.unwrap().value > 0 && layer.timestamp > 0);
    let listed = cri.runtime().list_container_stats(v1::ListContainerStatsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().stats.len(), 1);
    cri.stop(&id, 0).await.unwrap();
    refused(update(limits(128, 0)).await, Code::FailedPrecondition);
}

async fn a_root_filesystem_can_be_read_only(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let mut config = sleeps("locked");
    security(&mut config).readonly_rootfs = true;
    let id = cri.launch(&pod, &config).await.unwrap();
    cri.shell(&id, "touch /www/x").await.expect_err("it is read-only");
    cri.shell(&id, "touch /dev/shm/x").await.expect("what is mounted is not");
    let id = cri.launch(&pod, &sleeps("open")).await.unwrap();
    cri.shell(&id, "touch /www/x").await.unwrap();
    let other = cri.launch(&pod, &sleeps("other")).await.unwrap();
    cri.shell(&other, "test ! -e /www/x").await.expect("it is another's");
}

async fn folders_of_the_host_are_seen_as_they_were_asked_for(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let folder = node.folder("shared");
    fs::write(folder.join("word"), "hello").unwrap();
    let link = node.folder("links").join("to-shared");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let mut config = sleeps("c");
    let readonly = v1::Mount { readonly: true, ..mount(&folder, "/ro") };
    config.mounts = vec![
        mount(&folder, "/rw"),
        readonly,
        mount(&link, "/linked"),
        mount(&folder.join("word"), "/etc/word"),
    ];
    let id = cri.launch(&pod, &config).await.unwrap();
    let seen = cri.shell(&id, "cat /rw/word /ro/word /linked/word /etc/word").await.unwrap();
    assert_eq!(seen, "hello".repeat(4));
    cri.shell(&id, "echo back > /rw/answer").await.unwrap();
    assert_eq!(fs::read_to_string(folder.join("answer")).unwrap(), "back\n");
    cri.shell(&id, "touch /ro/x").await.expect_err("it is read-only");
    let shown = cri.container(&id).await.unwrap().mounts;
    let paths: Vec<_> = shown.iter().map(|it| (it.container_path.as_str(), it.readonly)).collect();
    for wanted in [("/rw", false), ("/ro", true), ("/linked", false), ("/etc/word", false)] {
        assert!(paths.contains(&wanted), "{paths:?}");
    }

    let mut config = sleeps("missing");
    config.mounts = vec![mount(&folder.join("not-there"), "/x")];
    let why = refused(cri.create(&pod, &config).await, Code::InvalidArgument);
    assert!(why.contains("not-there"), "{why}");
    assert_eq!(cri.containers().await.unwrap().len(), 1);
}

async fn a_process_is_who_it_is_to_be(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let number = |value| Some(v1::Int64Value { value });
    let mut numbers = sleeps("numbers");
    security(&mut numbers).run_as_user = number(1234);
    security(&mut numbers).run_as_group = number(56);
    security(&mut numbers).supplemental_groups = vec![78];
    let id = cri.launch(&pod, &numbers).await.unwrap();
    assert_eq!(cri.shell(&id, "id -u; id -g; id -G").await.unwrap(), "1234\n56\n56 78");
    let user = cri.container(&id).await.unwrap().user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (1234, 56));

    let mut named = sleeps("named");
    security(&mut named).run_as_username = "web".into();
    let id = cri.launch(&pod, &named).await.unwrap();
    let seen = cri.shell(&id, "id -u; id -g; id -G | tr ' ' '\\n' | sort -n").await.unwrap();
    assert_eq!(seen, "1000\n50\n50\n60", "the groups that the image gives it too");
    let bounds = cri.shell(&id, "grep -E 'Cap(Inh|Eff)' /proc/self/status").await.unwrap();
    assert!(bounds.lines().all(|line| line.ends_with("0000000000000000")), "{bounds}");

    let mut nobody = sleeps("nobody");
    security(&mut nobody).run_as_username = "stranger".into();
    cri.launch(&pod, &nobody).await.expect_err("the image knows no such user");
    let mut wrapped = sleeps("wrapped");
    security(&mut wrapped).run_as_user = number(1 << 32);
    refused(cri.create(&pod, &wrapped).await, Code::InvalidArgument);
}

async fn processes_are_shared_as_far_as_they_are_to_be(handler: &str) {
    let Some((node, pod)) = sharing_pod_by(handler).await else { return };
    let cri = node.cri();
    let mode = |name: &str, mode: v1::NamespaceMode, target: &str| {
        let mut config = sleeps(name);
        let options = security(&mut config).namespace_options.get_or_insert_default();
        options.pid = mode.into();
        options.target_id = target.into();
        config
    };
    let namespace = async |id: &str| cri.shell(id, "readlink /proc/self/ns/pid").await.unwrap();
    let own = cri.launch(&pod, &mode("own", v1::NamespaceMode::Container, "")).await.unwrap();
    let a = cri.launch(&pod, &mode("a", v1::NamespaceMode::Pod, "")).await.unwrap();
    let b = cri.launch(&pod, &mode("b", v1::NamespaceMode::Pod, "")).await.unwrap();
    let host = cri.launch(&pod, &mode("host", v1::NamespaceMode::Node, "")).await.unwrap();
    let guest = cri.launch(&pod, &mode("guest", v1::NamespaceMode::Target, &own)).await.unwrap();
    assert_eq!(cri.shell(&own, "cat /proc/1/comm").await.unwrap(), "sleep");
    assert_eq!(cri.shell(&a, "cat /proc/1/comm").await.unwrap(), "pause");
    assert_eq!(namespace(&a).await, namespace(&b).await);
    assert_eq!(namespace(&guest).await, namespace(&own).await);
    let ours = fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    assert_eq!(namespace(&host).await, ours);
    for (one, other) in [(&own, &a), (&own, &host), (&a, &host)] {
        assert_ne!(namespace(one).await, namespace(other).await);
    }
    let alone = cri.run_pod_by(&node.pod("alone"), handler).await.unwrap();
    let unshared = cri.create(&alone, &mode("unshared", v1::NamespaceMode::Pod, "")).await;
    if handler != "pause" {
        refused(unshared, Code::InvalidArgument);
    }
    let missing = mode("lost", v1::NamespaceMode::Target, "0123456789abcdef");
    refused(cri.create(&pod, &missing).await, Code::InvalidArgument);
    for shared in ["net", "ipc", "uts"] {
        let link = format!("readlink /proc/self/ns/{shared}");
        assert_eq!(cri.shell(&own, &link).await.unwrap(), cri.shell(&a, &link).await.unwrap());
    }
}

async fn what_cannot_be_run_is_told_and_leaves_nothing(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let before = node.snapshot_after_the_first_of(&pod).await;
    let lost = container("lost", &["/no/such/program"]);
    let why = match cri.create(&pod, &lost).await {
        // Some runtimes look when they create, and some when they start.
        Err(status) => status.message().to_owned(),
        Ok(id) => {
            let why = cri.start(&id).await.expect_err("there is nothing to start");
            let status = cri.container(&id).await.unwrap();
            assert_eq!(status.state(), v1::ContainerState::ContainerExited);
            assert!(status.exit_code != 0 && status.finished_at > 0);
            cri.remove(&id).await.unwrap();
            why.message().to_owned()
        }
    };
    assert!(why.contains("/no/such/program") || why.contains("No such file"), "{why}");
    let mut unknown = sleeps("unknown");
    unknown.image.as_mut().unwrap().image = "e2e.test/never-pulled:1".into();
    refused(cri.create(&pod, &unknown).await, Code::NotFound);
    let mut climbing = sleeps("climbing");
    climbing.log_path = "../../../etc/cron.d/x".into();
    refused(cri.create(&pod, &climbing).await, Code::InvalidArgument);
    node.assert_untouched(&before, "containers that could not be").await;
    cri.launch(&pod, &sleeps("lost")).await.expect("the name is free again");
}

async fn a_container_that_runs_can_be_removed(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let before = node.snapshot_after_the_first_of(&pod).await;
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    cri.shell(&id, "mkdir /www/deep; touch /www/deep/x").await.unwrap();
    let pid = cri.pid(&id).await.unwrap();
    cri.remove(&id).await.unwrap();
    assert!(e2e::Process::of(pid).is_none_or(|process| process.zombie));
    refused(cri.container(&id).await, Code::NotFound);
    node.assert_untouched(&before, "a container that was removed while it ran").await;
}

async fn a_container_that_is_frozen_can_be_stopped(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let id = cri.launch(&pod, &sleeps("cold")).await.unwrap();
    let groups =
        fs::read_to_string(format!("/proc/{}/cgroup", cri.pid(&id).await.unwrap())).unwrap();
    let Some(group) = groups.lines().find_map(|line| line.split_once(":freezer:/")) else {
        return e2e::skip("this host has no cgroup v1 to freeze with");
    };
    let state = Path::new("/sys/fs/cgroup/freezer").join(group.1).join("freezer.state");
    fs::write(&state, "FROZEN").unwrap();
    let frozen = async || is_true(fs::read_to_string(&state).unwrap().trim() == "FROZEN");
    eventually("it is frozen", frozen).await;
    let begun = Instant::now();
    cri.stop(&id, 1).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(cri.container(&id).await.unwrap().exit_code, 137);
    cri.remove(&id).await.unwrap();
}

#[tokio::test]
async fn a_log_that_leads_elsewhere_is_not_followed() {
    let Some((node, pod)) = pod_by("podbay").await else { return };
    let cri = node.cri();
    let victim = node.folder("victim").join("file");
    fs::write(&victim, "untouched").unwrap();
    let log = node.log_of("web", "sly");
    std::os::unix::fs::symlink(&victim, &log).unwrap();
    let sly = shell("sly", "while true; do echo spilled; usleep 1000; done");
    cri.launch(&pod, &sly).await.expect_err("its log is a link");
    fs::remove_file(&log).unwrap();
    let id = cri.launch(&pod, &sly).await.unwrap();
    let kept = log.with_extension("log.1");
    fs::rename(&log, &kept).unwrap();
    std::os::unix::fs::symlink(&victim, &log).unwrap();
    cri.reopen_log(&id).await.expect_err("its log is a link");
    let length = || fs::metadata(&kept).unwrap().len();
    let before = length();
    eventually("the file that was open stays in use", async || is_true(length() > before)).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    fs::remove_file(&log).unwrap();
    cri.reopen_log(&id).await.unwrap();
    eventually("the new file is used", async || is_true(!lines(&log).is_empty())).await;
}

#[tokio::test]
async fn a_log_that_was_renamed_is_opened_anew_and_no_line_is_lost() {
    let Some((node, pod)) = pod_by("podbay").await else { return };
    let cri = node.cri();
    let line = "n=0; while [ $n -lt 3000 ]; do echo line $n; n=$((n + 1)); usleep 200; done";
    let id = cri.launch(&pod, &shell("talks", line)).await.unwrap();
    let log = node.log_of("web", "talks");
    let mut parts = Vec::new();
    for round in 0..5 {
        eventually("it says something", async || {
            is_true(fs::metadata(&log).is_ok_and(|file| file.len() > 2000))
        })
        .await;
        let kept = log.with_extension(format!("log.{round}"));
        fs::rename(&log, &kept).unwrap();
        cri.reopen_log(&id).await.unwrap();
        assert!(log.exists(), "it is there when the call returns");
        let length = fs::metadata(&kept).unwrap().len();
        parts.push((kept, length));
    }
    assert_eq!(cri.ended(&id).await.unwrap().exit_code, 0);
    let mut said = String::new();
    for (kept, length) in &parts {
        assert_eq!(fs::metadata(kept).unwrap().len(), *length, "nothing more was written to it");
        said += &text(kept, "stdout");
    }
    said += &text(&log, "stdout");
    let all: String = (0..3000).map(|n| format!("line {n}\n")).collect();
    assert_eq!(said, all);
    let why = cri.reopen_log(&id).await.expect_err("it does not run any more");
    assert_eq!(why.code(), Code::FailedPrecondition);
}

async fn mounts_pass_on_as_far_as_they_are_to(handler: &str) {
    let Some((node, pod)) = pod_by(handler).await else { return };
    let cri = node.cri();
    let shared = node.folder("shared");
    let shown = shared.display().to_string();
    e2e::run("mount", &["--bind", &shown, &shown]);
    e2e::run("mount", &["--make-shared", &shown]);
    fs::create_dir(shared.join("from-host")).unwrap();
    let with = |name: &str, propagation: v1::MountPropagation| {
        let mut config = sleeps(name);
        security(&mut config).privileged = true;
        let propagation = propagation.into();
        config.mounts = vec![v1::Mount { propagation, ..mount(&shared, "/shared") }];
        config
    };
    let mut privileged = node.pod("privileged");
    let linux = privileged.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let other = cri.run_pod_by(&privileged, handler).await.unwrap();
    let private = with("private", v1::MountPropagation::PropagationPrivate);
    let slave = with("slave", v1::MountPropagation::PropagationHostToContainer);
    let both = with("both", v1::MountPropagation::PropagationBidirectional);
    let private = cri.launch(&other, &private).await.unwrap();
    let slave = cri.launch(&other, &slave).await.unwrap();
    let both = cri.launch(&other, &both).await.unwrap();

    let below = format!("{shown}/from-host");
    e2e::run("mount", &["-t", "tmpfs", "e2e", &below]);
    fs::write(shared.join("from-host/word"), "").unwrap();
    let sees = "test -e /shared/from-host/word";
    cri.shell(&slave, sees).await.unwrap();
    cri.shell(&both, sees).await.unwrap();
    cri.shell(&both, "mkdir /shared/back && mount -t tmpfs e2e /shared/back").await.unwrap();
    cri.shell(&both, "touch /shared/back/word").await.unwrap();
    assert!(shared.join("back/word").exists());
    cri.shell(&private, sees).await.expect_err("it is private");
    cri.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn devices_and_capabilities_are_given_as_asked_for_and_no_more() {
    let Some((node, pod)) = pod_by("podbay").await else { return };
    let cri = node.cri();
    let mut config = sleeps("plain");
    config.devices = vec![v1::Device {
        host_path: "/dev/full".into(),
        container_path: "/dev/brim".into(),
        permissions: "rw".into(),
    }];
    let capabilities = security(&mut config).capabilities.get_or_insert_default();
    capabilities.drop_capabilities = vec!["ALL".into()];
    capabilities.add_capabilities = vec!["NET_ADMIN".into()];
    let id = cri.launch(&pod, &config).await.unwrap();
    let why = cri.shell(&id, "echo x > /dev/brim").await.expect_err("it is full");
    assert!(why.message().contains("No space left"), "{why}");
    let caps = cri.shell(&id, "grep CapEff /proc/self/status").await.unwrap();
    assert!(caps.ends_with("0000000000001000"), "{caps}");
    cri.shell(&id, "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem").await.expect_err("no device");
}
