//! What a container sees of its root: mounts, devices, and what is closed to it. By the built-in
//! runtime and by runc, so that each holds the other to the specification.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{fs, os::unix::fs::symlink};

use common::{Bundle, Pod};
use serde_json::{Value, json};

with_each_runtime! {
    what_is_closed_is_neither_seen_nor_changed
    every_device_and_link_that_programs_expect_is_there
    a_mount_is_as_its_options_say
    a_mount_point_is_made_where_its_path_leads_inside
    no_path_of_a_container_leads_outside
    nothing_is_mounted_over_what_the_kernel_tells
    a_program_has_no_descriptor_but_its_own
    a_working_directory_is_made
    a_name_and_sysctls_are_the_containers_own
}

/// Runs a script in a container that it has made ready, and gives what it says.
async fn say(pod: &Pod, mut change: impl FnMut(&mut Bundle), script: &str) -> String {
    let mut bundle = pod.bundle("a", &["sh", "-c", script]);
    change(&mut bundle);
    let exit = pod.run_out(&bundle).await;
    assert_eq!(exit.code, 0, "{}{}", bundle.logged("stdout"), bundle.logged("stderr"));
    pod.shim.delete("a", common::SOON).await.unwrap();
    let said = bundle.logged("stdout");
    fs::remove_dir_all(&bundle.dir).unwrap();
    said
}

fn add_mount(bundle: &mut Bundle, mount: Value) {
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
}

fn bind(source: &std::path::Path, place: &str, options: &[&str]) -> Value {
    json!({"destination": place, "type": "bind", "source": source, "options": options})
}

async fn what_is_closed_is_neither_seen_nor_changed(runtime: &str) {
    let pod = Pod::start(runtime);
    let close = |bundle: &mut Bundle| {
        let root = bundle.dir.join("rootfs");
        fs::create_dir_all(root.join("secrets")).unwrap();
        fs::write(root.join("secrets/key"), "k").unwrap();
        fs::write(root.join("file"), "seen").unwrap();
        fs::create_dir_all(root.join("fixed")).unwrap();
        let linux = &mut bundle.config["linux"];
        linux["maskedPaths"] = json!(["/secrets", "/file", "/proc/kcore", "/not/there"]);
        linux["readonlyPaths"] = json!(["/fixed", "/proc/sys", "/not/there/either"]);
    };
    let script = "cat /file | wc -c; ls /secrets | wc -l; head -c 1 /proc/kcore | wc -c; \
        touch /fixed/x 2>/dev/null || echo fixed; touch /secrets/x 2>/dev/null || echo masked; \
        echo x > /proc/sys/kernel/domainname 2>/dev/null || echo kernel; touch /free && echo free";
    assert_eq!(say(&pod, close, script).await, "0\n0\n0\nfixed\nmasked\nkernel\nfree\n");
    let read_only = |bundle: &mut Bundle| bundle.config["root"]["readonly"] = json!(true);
    let script = "touch /x 2>/dev/null || echo root; touch /dev/x && echo dev";
    assert_eq!(say(&pod, read_only, script).await, "root\ndev\n");
}

async fn every_device_and_link_that_programs_expect_is_there(runtime: &str) {
    let pod = Pod::start(runtime);
    let more = |bundle: &mut Bundle| {
        bundle.config["linux"]["devices"] = json!([
            {"path": "/dev/own/disk", "type": "b", "major": 7, "minor": 3, "fileMode": 0o640, "gid": 6},
            {"path": "/dev/pipe", "type": "p", "major": 0, "minor": 0},
        ]);
    };
    let script = "cd /dev; for n in null zero full random urandom tty; do [ -c $n ] && echo $n; done; \
        for n in fd stdin stdout stderr ptmx; do readlink $n; done; \
        [ -p pipe ] && ls -ln own/disk | tr -s ' ' | head -c 22; echo; echo x > null; head -c 2 zero | wc -c";
    assert_eq!(
        say(&pod, more, script).await,
        "null\nzero\nfull\nrandom\nurandom\ntty\n/proc/self/fd\n/proc/self/fd/0\n\
         /proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\nbrw-r----- 1 0 6 7, 3 \n2\n"
    );
}

async fn a_mount_is_as_its_options_say(runtime: &str) {
    let pod = Pod::start(runtime);
    let host = pod.dir.join("host");
    fs::create_dir_all(host.join("below")).unwrap();
    fs::write(host.join("file"), "f").unwrap();
    let mounts = |bundle: &mut Bundle| {
        add_mount(bundle, bind(&host, "/ro", &["rbind", "ro", "nosuid", "nodev", "noexec"]));
        add_mount(bundle, bind(&host, "/rw", &["rbind", "rprivate", "rw"]));
        add_mount(bundle, bind(&host.join("file"), "/etc/file", &["bind", "ro"]));
        let options = ["nosuid", "noexec", "mode=1750", "size=64k"];
        add_mount(
            bundle,
            json!({"destination": "/mem", "type": "tmpfs", "source": "mem", "options": options}),
        );
    };
    let script = "touch /ro/x 2>/dev/null || echo ro; touch /rw/made && echo rw; cat /etc/file; echo; \
        ls -ld /mem | head -c 10; echo; cp /bin/busybox /mem/true 2>/dev/null || echo full; \
        grep ' /ro ' /proc/self/mountinfo | tr ' ' '\\n' | grep -c nosuid";
    assert_eq!(say(&pod, mounts, script).await, "ro\nrw\nf\ndrwxr-x--T\nfull\n1\n");
    assert!(host.join("made").exists());
}

async fn a_mount_point_is_made_where_its_path_leads_inside(runtime: &str) {
    let pod = Pod::start(runtime);
    let host = pod.dir.join("host");
    fs::write(&host, "host").unwrap();
    let mounts = |bundle: &mut Bundle| {
        let root = bundle.dir.join("rootfs");
        // As in images of systems with systemd, where it leads nowhere.
        symlink("../run/systemd/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        add_mount(bundle, bind(&host, "/etc/resolv.conf", &["bind", "ro"]));
        add_mount(bundle, bind(&host, "/deep/er/file", &["bind", "ro"]));
    };
    let script = "cat /etc/resolv.conf /deep/er/file";
    assert_eq!(say(&pod, mounts, script).await.trim(), "hosthost");
}

async fn no_path_of_a_container_leads_outside(runtime: &str) {
    let pod = Pod::start(runtime);
    let (inside, outside) = (pod.dir.join("inside"), pod.dir.join("outside"));
    for dir in [&inside, &outside] {
        fs::create_dir(dir).unwrap();
    }
    let mut bundle = pod.bundle("a", &["sh", "-c", "ls /up/../../../../../outside; true"]);
    let root = bundle.dir.join("rootfs");
    symlink(&outside, root.join("away")).unwrap();
    symlink("../../../../../../../../..", root.join("up")).unwrap();
    symlink("/proc/self/fd", root.join("fds")).unwrap();
    add_mount(&mut bundle, bind(&inside, "/away/here", &["bind"]));
    add_mount(&mut bundle, bind(&inside, "/up/up/there", &["bind"]));
    pod.run_out(&bundle).await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    assert!(root.join("up").is_symlink() && !pod.dir.join("there").exists());
    assert!(!std::path::Path::new("/there").exists());
}

async fn nothing_is_mounted_over_what_the_kernel_tells(runtime: &str) {
    let pod = Pod::start(runtime);
    let host = pod.dir.join("host");
    fs::create_dir(&host).unwrap();
    let refused = [
        |bundle: &mut Bundle, host: &std::path::Path| {
            add_mount(bundle, bind(host, "/proc/self", &["bind"]));
        },
        |bundle: &mut Bundle, host: &std::path::Path| {
            symlink("/proc", bundle.dir.join("rootfs/data")).unwrap();
            add_mount(bundle, bind(host, "/data/1", &["bind"]));
        },
        |bundle: &mut Bundle, _: &std::path::Path| {
            let root = bundle.dir.join("rootfs");
            fs::remove_dir(root.join("proc")).unwrap();
            symlink("tmp", root.join("proc")).unwrap();
        },
    ];
    for (n, change) in refused.into_iter().enumerate() {
        let mut bundle = pod.bundle(&format!("refused-{n}"), &["true"]);
        change(&mut bundle, &host);
        let error = pod.create(&bundle).await.unwrap_err().to_string();
        assert!(error.contains("proc"), "{n}: {error}");
    }
}

async fn a_program_has_no_descriptor_but_its_own(runtime: &str) {
    let pod = Pod::start(runtime);
    // The shell opens one to list them.
    let script = "cd /proc/self/fd; for fd in *; do [ -e $fd ] && echo $fd; done; true";
    assert_eq!(say(&pod, |_| {}, script).await, "0\n1\n2\n");
}

async fn a_working_directory_is_made(runtime: &str) {
    let pod = Pod::start(runtime);
    let change = |bundle: &mut Bundle| bundle.config["process"]["cwd"] = json!("/work/here");
    assert_eq!(say(&pod, change, "pwd").await, "/work/here\n");
}

async fn a_name_and_sysctls_are_the_containers_own(runtime: &str) {
    let pod = Pod::start(runtime);
    let before = fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap();
    let change = |bundle: &mut Bundle| {
        bundle.config["linux"]["sysctl"] =
            json!({"kernel.shm_rmid_forced": "1", "net.ipv4.ip_default_ttl": "77"});
    };
    let script = "cat /proc/sys/kernel/hostname /proc/sys/kernel/shm_rmid_forced \
        /proc/sys/net/ipv4/ip_default_ttl";
    assert_eq!(say(&pod, change, script).await, "test\n1\n77\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap(), before);
}

#[tokio::test]
async fn a_private_mount_stays_private_beside_one_that_is_not() {
    let pod = Pod::start("");
    let (shared, private) = (pod.dir.join("shared"), pod.dir.join("private"));
    for dir in [&shared, &private] {
        fs::create_dir_all(dir.join("late")).unwrap();
        let dir = dir.to_str().unwrap();
        for args in [&["--bind", dir, dir][..], &["--make-shared", dir]] {
            assert!(std::process::Command::new("mount").args(args).status().unwrap().success());
        }
    }
    let mut bundle = pod.bundle("a", &["sleep", "1000"]);
    add_mount(&mut bundle, bind(&shared, "/slave", &["rbind", "rslave"]));
    add_mount(&mut bundle, bind(&private, "/private", &["rbind", "rprivate"]));
    pod.run(&bundle).await;
    let late = |dir: &std::path::Path| dir.join("late").to_str().unwrap().to_owned();
    for dir in [&shared, &private] {
        let args = ["-t", "tmpfs", "late", &late(dir)];
        assert!(std::process::Command::new("mount").args(args).status().unwrap().success());
    }
    let seen = pod.say("a", &["grep", "-c", "late", "/proc/self/mountinfo"]).await;
    for dir in [&shared, &private] {
        for dir in [&late(dir), dir.to_str().unwrap()] {
            assert!(std::process::Command::new("umount").arg(dir).status().unwrap().success());
        }
    }
    assert_eq!(seen, "1\n", "only below the slave");
}

#[tokio::test]
async fn what_would_be_left_out_is_refused() {
    let pod = Pod::start("");
    type Ask = fn(&mut Value);
    let asks: [(&str, Ask); 5] = [
        ("linux.personality", |c| c["linux"]["personality"] = json!({"domain": "LINUX32"})),
        ("linux.mountLabel", |c| c["linux"]["mountLabel"] = json!("a:b:c")),
        ("linux.resources.blockIO", |c| {
            c["linux"]["resources"] = json!({"blockIO": {"weight": 10}})
        }),
        ("mount namespace", |c| c["linux"]["namespaces"] = json!([{"type": "pid"}])),
        ("tmpcopyup", |c| {
            c["mounts"][0]["options"] = json!(["tmpcopyup"]);
        }),
    ];
    for (what, ask) in asks {
        let mut bundle = pod.bundle("a", &["true"]);
        ask(&mut bundle.config);
        let error = pod.create(&bundle).await.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        fs::remove_dir_all(&bundle.dir).unwrap();
    }
}
