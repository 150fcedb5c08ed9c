//! Attaching to a container under a real shim, with each runtime: what clients hear, when, and what
//! the container hears of them. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{Bundle, Pod, SOON, eventually, hear, hear_all, until, whole, write_all};
use names::Class;
use serde_json::json;
use shim::source::Source;
use shim_api::{AttachStart, Size, Streams};

with_each_runtime! {
    clients_hear_what_is_logged_from_when_they_came_to_the_end
    a_slow_client_loses_nothing_and_one_that_goes_holds_nobody_up
    a_client_that_never_reads_does_not_keep_a_container_from_its_end
    what_a_client_writes_is_read_and_the_next_client_may_go_on
    stdin_for_one_client_ends_with_it
    a_terminal_is_heard_typed_at_and_resized
    a_container_without_a_log_is_heard_too
    only_a_living_container_is_attached_to
    many_clients_leave_nothing_behind
}

const OUTPUT: AttachStart = AttachStart { stdin: false, stdout: true, stderr: true };
const ALL: AttachStart = AttachStart { stdin: true, stdout: true, stderr: true };

/// A container that does not say anything until it is told to go.
fn waiting(pod: &Pod, script: &str) -> Bundle {
    let script = format!("echo before; while [ ! -e /go ]; do sleep 0.01; done; {script}");
    pod.bundle("a", &["sh", "-c", &script])
}

fn go(bundle: &Bundle) {
    fs::write(bundle.dir.join("rootfs/go"), "").unwrap();
}

async fn attach(pod: &Pod, start: AttachStart) -> Streams {
    pod.shim.attach("a", start).await.unwrap()
}

/// A log that is being written may not end with a whole line.
fn log_size(bundle: &Bundle) -> u64 {
    fs::metadata(bundle.log()).unwrap().len()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn numbers(from: u32, to: u32) -> String {
    (from..=to).map(|n| format!("{n}\n")).collect()
}

async fn clients_hear_what_is_logged_from_when_they_came_to_the_end(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = waiting(&pod, "seq 1 60000; seq 5000 8000 >&2; printf '\\0\\ntail'; exit 3");
    pod.run(&bundle).await;
    until("it waits", || bundle.logged("stdout") == "before\n");
    let (mut one, two) = (attach(&pod, OUTPUT).await, attach(&pod, OUTPUT).await);
    let out = AttachStart { stdin: true, stdout: true, stderr: false };
    let three = attach(&pod, out).await;
    assert!(three.stdin.is_none(), "it was not kept open");
    assert!(three.stderr.is_none() && three.terminal.is_none());
    go(&bundle);
    let (a, b, c, d, e) = tokio::join!(
        whole(one.stdout.take().unwrap()),
        whole(one.stderr.take().unwrap()),
        whole(two.stdout.unwrap()),
        whole(two.stderr.unwrap()),
        whole(three.stdout.unwrap()),
    );
    let wanted = format!("{}\0\ntail", numbers(1, 60_000));
    assert!(text(a) == wanted && text(c) == wanted && text(e) == wanted);
    assert!(text(b) == numbers(5000, 8000) && text(d) == numbers(5000, 8000));
    assert_eq!(pod.wait("a").await.code, 3);
    assert!(bundle.logged("stdout") == format!("before\n{wanted}"));
    assert!(bundle.logged("stderr") == numbers(5000, 8000));
}

async fn a_slow_client_loses_nothing_and_one_that_goes_holds_nobody_up(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = waiting(&pod, "seq 1 300000; touch /written; exit 0");
    pod.run(&bundle).await;
    let (slow, dead, quick) =
        (attach(&pod, OUTPUT).await, attach(&pod, OUTPUT).await, attach(&pod, OUTPUT).await);
    // The last one has joined by then.
    until("it waits", || bundle.logged("stdout") == "before\n");
    go(&bundle);
    let quick = Source::new(quick.stdout.unwrap()).unwrap();
    let begin = hear(&quick, 10_000).await;
    until("there is more than a pipe holds", || log_size(&bundle) > 200_000);
    assert!(!bundle.dir.join("rootfs/written").exists(), "who writes waits for who reads");
    let slow = Source::new(slow.stdout.unwrap()).unwrap();
    let unheard = hear(&slow, 10_000).await;
    drop(dead);
    let (rest, late) = tokio::join!(hear_all(&quick), hear_all(&slow));
    assert_eq!(pod.wait("a").await.code, 0);
    let wanted = bundle.logged("stdout");
    assert!(wanted == format!("before\n{}", numbers(1, 300_000)));
    // Whoever came early enough has heard the first line too.
    assert!(wanted.ends_with(&(begin + &text(rest))));
    assert!(wanted.ends_with(&(unheard + &text(late))));
}

async fn a_client_that_never_reads_does_not_keep_a_container_from_its_end(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = waiting(&pod, "seq 1 300000");
    pod.run(&bundle).await;
    until("it waits", || bundle.logged("stdout") == "before\n");
    let silent = attach(&pod, OUTPUT).await;
    go(&bundle);
    until("it is stuck", || log_size(&bundle) > 200_000);
    let began = Instant::now();
    pod.shim.kill("a", 9, false, SOON).await.unwrap();
    assert_eq!(pod.wait("a").await.code, 137);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let heard = text(whole(silent.stdout.unwrap()).await);
    assert!(bundle.logged("stdout") == format!("before\n{heard}"), "nothing is lost even then");
    pod.shim.delete("a", SOON).await.unwrap();
}

async fn what_a_client_writes_is_read_and_the_next_client_may_go_on(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["cat"]);
    bundle.stdin = true;
    pod.run(&bundle).await;
    let one = attach(&pod, ALL).await;
    let (stdin, screen) = (one.stdin.unwrap(), Source::new(one.stdout.unwrap()).unwrap());
    let two = attach(&pod, ALL).await;
    write_all(stdin, b"hello\n").await;
    assert_eq!(hear(&screen, 6).await, "hello\n");
    write_all(two.stdin.unwrap(), b"again\n").await;
    assert_eq!(hear(&screen, 6).await, "again\n");
    assert_eq!(hear(&Source::new(two.stdout.unwrap()).unwrap(), 12).await, "hello\nagain\n");
    let mut three = attach(&pod, ALL).await;
    write_all(three.stdin.take().unwrap(), b"third\n").await;
    assert_eq!(hear(&screen, 6).await, "third\n");
    assert_eq!(bundle.logged("stdout"), "hello\nagain\nthird\n");
    pod.shim.kill("a", 9, false, SOON).await.unwrap();
    assert_eq!(hear_all(&screen).await, b"", "the end");
}

async fn stdin_for_one_client_ends_with_it(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["sh", "-c", "cat; echo bye; exit 7"]);
    bundle.stdin = true;
    let request = shim_api::CreateTask { stdin_once: true, ..pod.request(&bundle) };
    pod.shim.create(request, SOON).await.unwrap();
    pod.shim.start("a", SOON).await.unwrap();
    let deaf = attach(&pod, OUTPUT).await;
    let mut one = attach(&pod, ALL).await;
    let two = attach(&pod, ALL).await;
    assert!(two.stdin.is_none(), "it is for the first");
    drop(deaf);
    // What a client does whose own input has ended, and who still listens.
    write_all(one.stdin.take().unwrap(), b"hello\n").await;
    assert_eq!(text(whole(one.stdout.unwrap()).await), "hello\nbye\n");
    assert_eq!(text(whole(two.stdout.unwrap()).await), "hello\nbye\n");
    assert_eq!(pod.wait("a").await.code, 7);
}

async fn a_terminal_is_heard_typed_at_and_resized(runtime: &str) {
    let pod = Pod::start(runtime);
    let script = "stty -echo; echo ready; while read line; do echo got $line; stty size; done";
    let mut bundle = pod.bundle("a", &["sh", "-c", script]);
    bundle.config["process"]["terminal"] = json!(true);
    (bundle.terminal, bundle.stdin) = (true, true);
    pod.run(&bundle).await;
    until("it is ready", || bundle.logged("stdout") == "ready\r\n");
    let one = attach(&pod, ALL).await;
    assert!(one.terminal.is_none() && one.stderr.is_none());
    pod.shim.resize("a", Size { width: 90, height: 30 }, SOON).await.unwrap();
    let screen = Source::new(one.stdout.unwrap()).unwrap();
    write_all(one.stdin.unwrap(), b"a\n").await;
    assert_eq!(hear(&screen, 14).await, "got a\r\n30 90\r\n");
    let two = attach(&pod, ALL).await;
    write_all(two.stdin.unwrap(), b"b\n").await;
    for screen in [screen, Source::new(two.stdout.unwrap()).unwrap()] {
        assert_eq!(hear(&screen, 14).await, "got b\r\n30 90\r\n");
    }
    let three = attach(&pod, OUTPUT).await;
    pod.shim.kill("a", 9, false, SOON).await.unwrap();
    assert_eq!(whole(three.stdout.unwrap()).await, b"", "the end");
    assert_eq!(pod.wait("a").await.code, 137);
}

async fn a_container_without_a_log_is_heard_too(runtime: &str) {
    let pod = Pod::start(runtime);
    let bundle = waiting(&pod, "echo after");
    let request = shim_api::CreateTask { log: None, ..pod.request(&bundle) };
    pod.shim.create(request, SOON).await.unwrap();
    // It is not started yet: nothing it says is missed.
    let one = attach(&pod, OUTPUT).await;
    pod.shim.start("a", SOON).await.unwrap();
    go(&bundle);
    assert_eq!(text(whole(one.stdout.unwrap()).await), "before\nafter\n");
    assert_eq!(pod.wait("a").await.code, 0);
}

async fn only_a_living_container_is_attached_to(runtime: &str) {
    let pod = Pod::start(runtime);
    let unknown = pod.shim.attach("a", ALL).await.unwrap_err();
    assert_eq!(unknown.class(), Class::NotFound);
    let bundle = pod.bundle("a", &["true"]);
    pod.run_out(&bundle).await;
    let ended = pod.shim.attach("a", ALL).await.unwrap_err();
    assert_eq!(ended.class(), Class::FailedPrecondition, "{ended}");
}

async fn many_clients_leave_nothing_behind(runtime: &str) {
    let pod = Pod::start(runtime);
    let mut bundle = pod.bundle("a", &["sleep", "1000"]);
    bundle.stdin = true;
    pod.run(&bundle).await;
    let fds = || fs::read_dir(format!("/proc/{}/fd", pod.pid())).unwrap().count();
    pod.shim.state("a", SOON).await.unwrap();
    let before = fds();
    for _ in 0..20 {
        drop(attach(&pod, ALL).await);
    }
    // The container says nothing: they are dropped for having gone.
    eventually("they are forgotten", || fds() == before).await;
}
