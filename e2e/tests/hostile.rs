//! Images and requests that try to get out of their container, or more than is theirs.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{fs, path::Path};

use cri_proto::v1;
use e2e::{
    Cri, Daemon, Layer, Layout, Options, Registry, SYMLINK, busybox_layer, lead, mount, refused,
    security, sleeps,
};
use tonic::Code;

/// A daemon with an image of busybox and, above it, this layer. None where that cannot be.
async fn with_image(layer: Layer) -> Option<(Daemon, Registry, String)> {
    let node = Daemon::start(Options::default()).await?;
    let registry = Registry::start(&node.folder("registry")).await?;
    lead(&node.place.certs_d(), "evil.test", registry.port);
    let layout = Layout::write(&node.folder("layouts").join("evil"), &[busybox_layer(), layer]);
    registry.push(&layout, "image:1");
    let image = node.cri().pull("evil.test/image:1").await.expect("such an image can be pulled");
    Some((node, registry, image))
}

/// As far up as anybody could be, and then down to a path of the host.
fn climbing(path: &Path) -> Vec<u8> {
    format!("{}{}", "../".repeat(12), path.display().to_string().trim_start_matches('/')).into()
}

fn of_image(name: &str, image: &str) -> v1::ContainerConfig {
    let mut config = sleeps(name);
    config.image.as_mut().unwrap().image = image.to_owned();
    config
}

/// Whether a container of the image can be started, and where it is found if so.
async fn try_it(cri: &Cri, pod: &str, config: &v1::ContainerConfig) -> Option<String> {
    cri.launch(pod, config).await.ok()
}

#[tokio::test]
async fn links_in_an_image_do_not_lead_what_is_mounted_out_of_it() {
    let outside = format!("/run/pbt-{}-outside", std::process::id());
    let layer = vec![
        ("up".into(), SYMLINK, climbing(Path::new(&outside))),
        ("root".into(), SYMLINK, outside.clone().into_bytes()),
        ("etc/hosts".into(), SYMLINK, climbing(&Path::new(&outside).join("hosts"))),
        ("dev".into(), SYMLINK, climbing(Path::new(&outside))),
    ];
    let Some((node, _registry, image)) = with_image(layer).await else { return };
    let cri = node.cri();
    fs::create_dir_all(&outside).unwrap();
    let folder = node.folder("mounted");
    fs::write(folder.join("word"), "hello").unwrap();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    for (n, place) in ["/up/a", "/root/b", "/up/../up/c"].into_iter().enumerate() {
        let mut config = of_image(&format!("c{n}"), &image);
        config.mounts = vec![mount(&folder, place)];
        if let Some(id) = try_it(&cri, &pod, &config).await {
            let seen = cri.shell(&id, &format!("cat {outside}/*/word")).await;
            assert_eq!(seen.unwrap_or_default(), "hello", "{place}: it is within its own root");
        }
    }
    let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|it| it.path()).collect();
    fs::remove_dir_all(&outside).unwrap();
    assert!(left.is_empty(), "made on the host: {left:?}");
    cri.remove_pod(&pod).await.unwrap();
}

#[tokio::test]
async fn a_user_is_looked_up_in_the_image_and_not_where_its_links_lead() {
    let host = format!("/run/pbt-{}-passwd", std::process::id());
    let layer = vec![("etc/passwd".into(), SYMLINK, climbing(Path::new(&host)))];
    let Some((node, _registry, image)) = with_image(layer).await else { return };
    let cri = node.cri();
    fs::write(&host, "ghost:x:4242:4242::/:/bin/sh\n").unwrap();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let mut config = of_image("c", &image);
    security(&mut config).run_as_username = "ghost".into();
    let told = cri.launch(&pod, &config).await;
    fs::remove_file(&host).unwrap();
    told.expect_err("the image knows no ghost");
}

#[tokio::test]
async fn a_working_directory_is_never_one_of_the_hosts() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let canary = node.folder("canary").join("word");
    fs::write(&canary, "of the host").unwrap();
    let path = String::from_utf8(climbing(&canary)).unwrap();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    for number in 3..24 {
        let mut config = sleeps(&format!("c{number}"));
        config.working_dir = format!("/proc/self/fd/{number}");
        if let Some(id) = try_it(&cri, &pod, &config).await {
            cri.shell(&id, &format!("cat {path}"))
                .await
                .expect_err("it is outside (CVE-2024-21626)");
            cri.remove(&id).await.unwrap();
        }
    }
    let root = cri.run_pod(&node.pod("q")).await.unwrap();
    let id = cri.launch(&root, &sleeps("c")).await.unwrap();
    let inside = cri.shell(&id, &format!("cd /proc/1/root; cat {path}")).await;
    inside.expect_err("the root of its first process is its own");
}

#[tokio::test]
async fn the_environment_of_a_container_holds_nothing_of_the_daemons() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let mut config = sleeps("c");
    let pair = |key: &str, value: &[u8]| v1::KeyValue { key: key.into(), value: value.into() };
    config.envs = vec![pair("HOME", b"/x\nroot2:x:0:0::/:/bin/sh"), pair("EMPTY", b"")];
    let id = cri.launch(&pod, &config).await.unwrap();
    let own = cri.pid(&id).await.unwrap();
    for names in [
        fs::read(format!("/proc/{own}/environ")).unwrap(),
        cri.exec(&id, &["cat", "/proc/self/environ"], 10).await.unwrap().stdout,
    ] {
        let pairs = names.split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
        let keys = pairs.map(|pair| pair.split(|byte| *byte == b'=').next().unwrap());
        let mut keys: Vec<_> = keys.map(String::from_utf8_lossy).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| !["HOSTNAME", "PWD", "SHLVL"].contains(&key.as_ref()));
        assert_eq!(keys, ["EMPTY", "HOME", "OF_IMAGE", "PATH"]);
    }
    let passwd = cri.shell(&id, "cat /etc/passwd").await.unwrap();
    assert!(!passwd.contains("root2"), "{passwd}");
    for (key, value) in [("A=B", &b"x"[..]), ("", b"x"), ("ZERO", b"a\0SECRET=b")] {
        let mut config = sleeps("bad");
        config.envs = vec![pair(key, value)];
        let why = refused(cri.create(&pod, &config).await, Code::InvalidArgument);
        assert!(why.contains("envs[0]") && !why.contains("SECRET"), "{why}");
    }
}

#[tokio::test]
async fn a_container_has_the_default_filter_of_system_calls_when_it_is_asked_for() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    use v1::security_profile::ProfileType;
    let with = |name: &str, kind: ProfileType, path: &str| {
        let mut config = sleeps(name);
        let (profile_type, localhost_ref) = (kind.into(), path.to_owned());
        security(&mut config).seccomp = Some(v1::SecurityProfile { profile_type, localhost_ref });
        config
    };
    let mode = "grep '^Seccomp:' /proc/self/status | cut -f 2";
    let id = cri.launch(&pod, &with("default", ProfileType::RuntimeDefault, "")).await.unwrap();
    assert_eq!(cri.shell(&id, mode).await.unwrap(), "2");
    let id = cri.launch(&pod, &with("none", ProfileType::Unconfined, "")).await.unwrap();
    assert_eq!(cri.shell(&id, mode).await.unwrap(), "0");

    let profile = node.folder("profiles").join("no-chmod.json");
    let text = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO" }
        ]
    }"#;
    fs::write(&profile, text).unwrap();
    let shown = profile.display().to_string();
    let id = cri.launch(&pod, &with("own", ProfileType::Localhost, &shown)).await.unwrap();
    cri.shell(&id, "touch /tmp/x && chmod 700 /tmp/x").await.expect_err("the profile forbids it");
    cri.shell(&id, "touch /tmp/y").await.unwrap();
    for bad in ["", "/no/such/profile.json", "/tmp"] {
        let told = cri.launch(&pod, &with("bad", ProfileType::Localhost, bad)).await;
        told.expect_err("what cannot be met is never skipped");
    }
    fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_NONSENSE"}"#).unwrap();
    let told = cri.launch(&pod, &with("bad", ProfileType::Localhost, &shown)).await;
    told.expect_err("what cannot be read is never skipped");
}

#[tokio::test]
async fn folders_of_the_daemon_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let Some(node) = Daemon::start(Options::default()).await else { return };
    node.cri().run_pod(&node.pod("p")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    // A pod's own root, who is nobody on the host, goes through two of them to what is its own
    // (a runtime that is a program mounts by path); nobody else finds anything there (CVE-2024-25621).
    let (state, pods) = (node.place.state(), node.place.state().join("pods"));
    for dir in [&state, &pods] {
        assert_eq!(mode(dir) & 0o006, 0, "{}: {:o}", dir.display(), mode(dir));
    }
    let below = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let dirs = below(&state).chain(below(&pods)).filter(|path| path.is_dir() && *path != pods);
    for dir in dirs.chain([node.place.root()]) {
        assert_eq!(mode(&dir) & 0o007, 0, "{}: {:o}", dir.display(), mode(&dir));
    }
    assert_eq!(mode(&node.place.socket()), 0o660);
    assert_eq!(mode(&node.place.root().join("records.key")), 0o600);
    let abstracts = fs::read_to_string("/proc/net/unix").unwrap();
    let own = abstracts.lines().filter(|line| line.contains("@") && line.contains("podbay"));
    assert_eq!(own.count(), 0, "no abstract socket, which a pod on the host's network could reach");
}
