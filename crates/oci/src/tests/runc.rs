//! Configs given to a real `runc`, which must start what they describe. Skipped, with the reason,
//! where there is no runc, no static busybox, or no root.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::{Seccomp, Spec, config, pause_config, to_json};

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 9] = ["sh", "id", "cat", "grep", "mount", "unshare", "pwd", "test", "touch"];

fn can_run() -> bool {
    let runs = Command::new("runc").arg("--version").stdout(Stdio::null()).status();
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt;
        me.uid() == 0
    });
    let can = runs.is_ok() && is_root && Path::new(BUSYBOX).exists();
    if !can {
        eprintln!("skipped: needs root, runc and {BUSYBOX}");
    }
    can
}

/// Runs the config in a bundle of its own; nothing of it is left afterwards.
fn run(mut spec: Spec) -> Output {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id =
        format!("podbay-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let bundle = tempfile::tempdir().unwrap();
    let bin = bundle.path().join("rootfs/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    let linux = spec.linux_mut().as_mut().unwrap();
    linux.set_cgroups_path(Some(format!("/{id}").into()));
    fs::write(bundle.path().join("config.json"), to_json(&spec)).unwrap();
    let state = bundle.path().join("state");
    let runc = |args: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "60", "runc", "--root"]).arg(&state).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let output = runc(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    runc(&["delete", "--force", &id]);
    output
}

/// What this machine has, so that the config is one for it.
fn this_node() -> Node {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    let floor = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    Node {
        architecture: Architecture::native(),
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        capabilities: capabilities_from_mask(mask),
        hugetlb: false,
        swap_accounting: false,
        selinux: false,
        apparmor: false,
        oom_score_floor: Some(floor),
        ..node()
    }
}

/// A plan that runs a line of shell on this machine, in namespaces of its own.
fn shell(line: &str) -> Plan {
    let mut plan = plan();
    plan.node = this_node();
    plan.namespaces = Namespaces {
        network: Namespace::Own,
        ipc: Namespace::Own,
        uts: Namespace::Own,
        pid: Namespace::Own,
        user: None,
    };
    plan.pod_files = PodFiles::default();
    plan.process.command = ["/bin/sh", "-c", line].map(str::to_owned).into();
    plan.process.args = Vec::new();
    plan.process.image.working_dir = "/".into();
    plan
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn out_of(plan: &Plan) -> String {
    said(&run(config(plan).unwrap().spec))
}

#[test]
fn runc_starts_a_plain_container_as_its_user_in_its_groups() {
    if !can_run() {
        return;
    }
    let line = "echo $(id -u):$(id -G) $HOME $MODE; grep -E '^Cap(Inh|Eff)' /proc/self/status";
    let said = out_of(&shell(line));
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("1000:1000 50000 /home/someone test"));
    for line in lines {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
}

#[test]
fn runc_keeps_a_container_from_its_masked_files_and_from_the_nodes_cgroups() {
    if !can_run() {
        return;
    }
    let mut plan = shell(
        "test ! -s /proc/kcore && ! touch /proc/sys/kernel/x /sys/fs/cgroup/x /sys/x 2>/dev/null",
    );
    plan.process.user = User::default();
    out_of(&plan);
}

#[test]
fn runc_runs_the_default_filter_and_it_filters() {
    if !can_run() {
        return;
    }
    let mut plan = shell("unshare -U true 2>/dev/null && echo filtered not; echo $$ $(pwd)");
    plan.security.seccomp = Seccomp::RuntimeDefault;
    plan.process.user = User::default();
    assert_eq!(out_of(&plan), "1 /", "makes processes, but no namespaces");
}

#[test]
fn runc_gives_a_container_its_mounts() {
    if !can_run() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("word"), "hello").unwrap();
    let source = host.path().to_str().unwrap();
    let mut plan =
        shell("cat /data/in/word && ! touch /data/in/x /ro 2>/dev/null && touch /data/x");
    plan.root.readonly = true;
    plan.process.user = User::default();
    fs::create_dir(host.path().join("in")).unwrap();
    plan.mounts =
        vec![Mount { readonly: true, ..mount("/data/in", source) }, mount("/data", source)];
    assert_eq!(out_of(&plan), "hello");
    assert!(host.path().join("x").exists());
}

#[test]
fn runc_starts_a_privileged_container() {
    if !can_run() {
        return;
    }
    let mut plan = shell("mount -t tmpfs none /mnt && grep CapEff /proc/self/status");
    plan.security.privileged = true;
    plan.process.user = User::default();
    plan.process.command[2] = format!("busybox mkdir /mnt && {}", plan.process.command[2]);
    plan.process.command[2] = plan.process.command[2].replace("busybox", "/bin/busybox");
    let said = out_of(&plan);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    assert_eq!(said, format!("CapEff:{bounding}"));
}

#[test]
fn runc_starts_a_pause_container_that_can_do_nothing() {
    if !can_run() {
        return;
    }
    let shm = tempfile::tempdir().unwrap();
    let mut plan = pause_plan();
    plan.node = this_node();
    plan.namespaces.network = Namespace::Own;
    plan.shm = Some(shm.path().to_owned());
    plan.security.seccomp = Seccomp::RuntimeDefault;
    let line = "cat /proc/sys/kernel/shm_rmid_forced; busybox hostname; ! touch /x 2>/dev/null; \
                grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status";
    plan.args =
        ["/bin/sh", "-c", &line.replace("busybox", "/bin/busybox")].map(str::to_owned).into();
    let said = said(&run(pause_config(&plan).unwrap().spec));
    let expected = "1\nweb-0\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2";
    assert_eq!(said, expected);
}
