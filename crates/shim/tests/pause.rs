//! The built-in pause as the init of a pid namespace. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use common::{Bundle, Pod, SOON, until};
use serde_json::json;

fn pausing(pod: &Pod, id: &str) -> Bundle {
    let mut bundle = pod.bundle(id, &["/pause"]);
    fs::copy(env!("CARGO_BIN_EXE_podbay-pause"), bundle.dir.join("rootfs/pause")).unwrap();
    bundle.config["process"]["capabilities"] = json!({});
    bundle
}

#[tokio::test]
async fn it_is_tiny_and_ends_well_at_a_signal_as_init() {
    assert!(fs::metadata(env!("CARGO_BIN_EXE_podbay-pause")).unwrap().len() < 4096);
    let pod = Pod::start("");
    for (id, signal) in [("a", 15), ("b", 2)] {
        let bundle = pausing(&pod, id);
        let pid = pod.run(&bundle).await;
        // An init that has not come to its first instruction does not get any signal.
        let call = || fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        until("it waits for signals", || {
            call().starts_with(&format!("{} ", libc::SYS_rt_sigtimedwait))
        });
        pod.shim.kill(id, 1, false, SOON).await.unwrap();
        pod.shim.kill(id, signal, false, SOON).await.unwrap();
        assert_eq!(pod.wait(id).await.code, 0);
    }
}

#[tokio::test]
async fn it_reaps_what_is_orphaned() {
    let pod = Pod::start("");
    let bundle = pausing(&pod, "a");
    pod.run(&bundle).await;
    pod.exec("a", &["sh", "-c", "(sleep 0.1 >/dev/null 2>&1 &)"]).await.unwrap();
    until("the orphan is gone", || pod.cgroup("a").pids().unwrap().len() == 1);
    let zombies = "grep -l 'State:.Z' /proc/[0-9]*/status; true";
    assert_eq!(pod.say("a", &["sh", "-c", zombies]).await, "");
}
