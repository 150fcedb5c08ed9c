//! Images that a container sees beside its own: what critest has of them, and what it has not.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{fs, path::Path};

use cri_proto::{
    admin::{File, MakeImageRequest},
    v1,
};
use e2e::{Daemon, IMAGE, Options, eventually, image_mount, is_true, refused, sleeps};
use tonic::Code;

const DATA: &str = "e2e.test/data:1";

/// A daemon with an image of data, by its id, and a pod by that handler.
async fn node_by(handler: &str) -> Option<(Daemon, String, String)> {
    if handler == "runc" && !e2e::has("runc") {
        return None;
    }
    let node = Daemon::start(Options::default()).await?;
    let data = make_data(&node).await;
    let pod = node.cri().run_pod_by(&node.pod("p"), handler).await.expect("a pod can be run");
    Some((node, data, pod))
}

async fn make_data(node: &Daemon) -> String {
    let file = |path: &str, content: &str| File {
        path: path.into(),
        mode: 0o644,
        content: content.into(),
        link: String::new(),
    };
    let files = vec![file("/word", "top"), file("/deep/down/word", "deep")];
    let reference = DATA.to_owned();
    let request = MakeImageRequest { reference, files, ..MakeImageRequest::default() };
    node.cri().make_image(request).await.expect("an image can be made")
}

fn with(mounts: impl IntoIterator<Item = v1::Mount>) -> v1::ContainerConfig {
    v1::ContainerConfig { mounts: mounts.into_iter().collect(), ..sleeps("c") }
}

e2e::by_handlers! {
    { by_the_built_in_runtime: "podbay", with_a_pause: "pause", by_runc: "runc" }
    [an_image_is_seen_and_run_from_and_not_written_to]
}

async fn an_image_is_seen_and_run_from_and_not_written_to(handler: &str) {
    let Some((node, data, pod)) = node_by(handler).await else { return };
    let cri = node.cri();
    let own = cri.image(IMAGE).await.unwrap().unwrap().id;
    let mut tools = image_mount(&own, "", "/mnt/tools");
    tools.image.as_mut().unwrap().user_specified_image = IMAGE.into();
    let config = with([
        tools,
        image_mount(&data, "", "/mnt/data"),
        image_mount(DATA, "deep/down", "/mnt/down"),
        image_mount(&own, "etc", "/mnt/tools/www"),
    ]);
    let before = node.snapshot_after_the_first_of(&pod).await;
    let id = cri.launch(&pod, &config).await.unwrap();
    let said = cri.shell(&id, "cat /mnt/data/word /mnt/data/deep/down/word /mnt/down/word").await;
    assert_eq!(said.unwrap(), "topdeepdeep");
    let tools = cri.shell(&id, "/mnt/tools/bin/ls /mnt/tools").await.unwrap();
    assert!(tools.contains("bin") && tools.contains("etc"), "{tools}");
    assert!(cri.shell(&id, "ls /mnt/tools/www").await.unwrap().contains("passwd"));
    for path in ["/mnt/data/new", "/mnt/data/word", "/mnt/down/word", "/mnt/tools/www/passwd"] {
        let written = cri.exec(&id, &["sh", "-c", &format!("echo x > {path}")], 20).await.unwrap();
        let said = String::from_utf8_lossy(&written.stderr).into_owned();
        assert!(written.exit_code != 0 && said.contains("Read-only file system"), "{path}: {said}");
    }
    // What the image brings is one mount each, and nothing of how it came to be.
    let mounts = cri.shell(&id, "grep -c ' /mnt/' /proc/self/mountinfo").await.unwrap();
    assert_eq!(mounts, "4");

    let status = cri.container(&id).await.unwrap();
    let shown = |n: usize| status.mounts[n].image.clone().unwrap();
    assert_eq!((shown(0).image_ref, shown(0).user_specified_image), (own.clone(), IMAGE.into()));
    assert_eq!((shown(2).image_ref, shown(2).image), (data, DATA.into()));
    assert_eq!(status.mounts[2].image_sub_path, "deep/down");
    assert!(status.mounts.iter().all(|mount| mount.readonly && mount.host_path.is_empty()));
    cri.remove(&id).await.unwrap();
    node.assert_untouched(&before, "a container with image volumes").await;
}

#[tokio::test]
async fn what_cannot_be_mounted_is_refused_with_its_field_and_leaves_nothing() {
    let Some((node, data, pod)) = node_by("").await else { return };
    let cri = node.cri();
    let before = node.snapshot_after_the_first_of(&pod).await;
    // Of two, so that a field has to be the right one.
    let why = async |mount: v1::Mount, code| {
        let config = with([image_mount(&data, "deep", "/good"), mount]);
        let why = refused(cri.create(&pod, &config).await, code);
        assert!(cri.containers().await.unwrap().is_empty(), "{why}");
        node.assert_untouched(&before, &why).await;
        why
    };
    let writable = v1::Mount { readonly: false, ..image_mount(&data, "", "/d") };
    let field = |why: &str, field: &str| assert!(why.contains(field), "{why}");
    field(&why(writable, Code::InvalidArgument).await, "config.mounts[1].readonly: ");
    let both = v1::Mount { host_path: "/tmp".into(), ..image_mount(&data, "", "/d") };
    field(&why(both, Code::InvalidArgument).await, "config.mounts[1].host_path: ");
    for path in ["/deep", "../deep", "deep/../deep", "."] {
        let why = why(image_mount(&data, path, "/d"), Code::InvalidArgument).await;
        field(&why, "config.mounts[1].image_sub_path: ");
    }
    for (path, words) in [("none", "no such folder"), ("deep/down/word", "a file")] {
        let why = why(image_mount(&data, path, "/d"), Code::InvalidArgument).await;
        let prefix = "ImageVolumeMountFailed: config.mounts[1].image_sub_path: ";
        assert!(why.starts_with(prefix) && why.contains(words) && why.contains(path), "{why}");
    }
    let missing = image_mount("e2e.test/never:1", "", "/d");
    let why = why(missing, Code::NotFound).await;
    let prefix = "ImageVolumeMountFailed: config.mounts[1].image.image: no image e2e.test/never:1";
    assert!(why.starts_with(prefix), "{why}");
}

#[tokio::test]
async fn an_image_that_a_container_sees_is_in_use_until_that_is_gone() {
    let Some((mut node, data, pod)) = node_by("").await else { return };
    let config = with([image_mount(&data, "deep/down", "/d")]);
    let id = node.cri().launch(&pod, &config).await.unwrap();
    node.cri().remove_image(DATA).await.unwrap();
    assert_eq!(node.cri().image(DATA).await.unwrap(), None, "it is gone from every list at once");
    let layers = || fs::read_dir(node.place.root().join("images/layers")).unwrap().count();
    assert_eq!(layers(), 2);
    assert_eq!(node.cri().shell(&id, "cat /d/word").await.unwrap(), "deep");
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert_eq!(cri.shell(&id, "cat /d/word").await.unwrap(), "deep");
    assert_eq!(cri.container(&id).await.unwrap().mounts[0].image.clone().unwrap().image_ref, data);
    let layers = || fs::read_dir(node.place.root().join("images/layers")).unwrap().count();
    assert_eq!(layers(), 2, "a start does not sweep what is in use");
    let late = v1::ContainerConfig { mounts: config.mounts.clone(), ..sleeps("late") };
    refused(cri.create(&pod, &late).await, Code::NotFound);
    cri.remove(&id).await.unwrap();
    eventually("its layer is gone", async || is_true(layers() == 1)).await;
}

#[tokio::test]
async fn a_container_with_volumes_that_fails_or_crashes_at_any_step_leaves_nothing() {
    let Some((mut node, data, pod)) = node_by("").await else { return };
    let config = with([image_mount(&data, "", "/a"), image_mount(&data, "deep", "/b")]);
    let before = node.snapshot_after_the_first_of(&pod).await;
    for moment in ["Rootfs:before", "Rootfs:after", "Task:before", "Task:after"] {
        node.fault(&format!("container.{moment}:fail"));
        node.cri().create(&pod, &config).await.expect_err(moment);
        node.assert_untouched(&before, moment).await;
        node.fault(&format!("container.{moment}:crash"));
        node.cri().create(&pod, &config).await.expect_err(moment);
        node.died(&format!("the daemon crashes: {moment}")).await;
        node.no_fault();
        node.start_again().await;
        let cri = node.cri();
        let none = async || is_true(cri.containers().await.unwrap().is_empty());
        eventually(&format!("no container is left: {moment}"), none).await;
        node.assert_untouched(&before, moment).await;
        let id = cri.launch(&pod, &config).await.unwrap_or_else(|why| panic!("{moment}: {why}"));
        assert_eq!(cri.shell(&id, "cat /b/down/word").await.unwrap(), "deep");
        cri.remove(&id).await.unwrap();
    }
    node.assert_untouched(&before, "a container that was lucky at last").await;
}

#[tokio::test]
async fn what_a_lost_record_leaves_mounted_is_swept_or_goes_with_its_quarantine() {
    let Some((mut node, data, pod)) = node_by("").await else { return };
    let config = with([image_mount(&data, "deep", "/d")]);
    node.cri().launch(&pod, &config).await.unwrap();
    node.kill();
    fs::remove_file(node.place.root().join("records.key")).unwrap();
    node.start_again().await;
    let cri = node.cri();
    let held = cri.quarantine().await.unwrap();
    assert!(!held.is_empty(), "records under another key are set aside");
    for held in held {
        cri.discard(&held.key).await.unwrap();
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let base = node.place.base.display().to_string();
    let left: Vec<_> = mounts.lines().filter(|line| line.contains(&base)).collect();
    assert_eq!(left, Vec::<&str>::new());
    cri.remove_image(DATA).await.unwrap();
    cri.remove_image(IMAGE).await.unwrap();
    let layers = || fs::read_dir(node.place.root().join("images/layers")).unwrap().count();
    eventually("no layer is left", async || is_true(layers() == 0)).await;
}

#[tokio::test]
async fn a_machine_that_went_down_with_volumes_comes_up_and_gives_them_back() {
    let Some(mut node) = Daemon::start_in_another_boot(Options::default()).await else { return };
    let data = make_data(&node).await;
    let pod = node.cri().run_pod(&node.pod("p")).await.unwrap();
    let config = with([image_mount(&data, "", "/d")]);
    let id = node.cri().launch(&pod, &config).await.unwrap();
    node.power_off().await;
    assert!(!Path::new(&node.place.state()).join("pods").exists());
    node.start_again().await;
    let cri = node.cri();
    let over = async || {
        let state = cri.container(&id).await.unwrap().state();
        is_true(state == v1::ContainerState::ContainerExited)
    };
    eventually("it is known to have ended", over).await;
    cri.remove_pod(&pod).await.unwrap();
    cri.remove_image(DATA).await.unwrap();
    let layers = || fs::read_dir(node.place.root().join("images/layers")).unwrap().count();
    eventually("its layer is gone", async || is_true(layers() == 1)).await;
}
