//! Images: from a real registry, from archives, and in use.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::fs;

use cri_proto::{admin, v1};
use e2e::{
    Daemon, IMAGE, Layer, Layout, Options, Proxy, Registry, USER, busybox_layer, lead, refused,
    sleeps,
};
use futures_util::{StreamExt, future::join_all};
use tonic::{Code, Status};

/// An image of three layers, with busybox in the first.
fn app(node: &Daemon, word: &str) -> Layout {
    let file = |path: &str, content: &[u8]| -> Layer { vec![(path.into(), 0o644, content.into())] };
    let layers = [
        busybox_layer(),
        file("etc/word", word.as_bytes()),
        file("etc/other", &word.as_bytes().repeat(20_000)),
    ];
    Layout::write(&node.folder("layouts").join(word), &layers)
}

fn named(mut config: v1::ContainerConfig, image: &str) -> v1::ContainerConfig {
    config.image.as_mut().unwrap().image = image.to_owned();
    config
}

#[tokio::test]
async fn an_image_comes_from_a_mirror_by_tag_and_by_digest_and_runs() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let (cri, layout) = (node.cri(), app(&node, "first"));
    registry.push(&layout, "team/app:1");

    assert_eq!(cri.image("registry.test/team/app:1").await.unwrap(), None);
    let id = cri.pull("registry.test/team/app:1").await.unwrap();
    assert_eq!(id, layout.config, "an image is known by its config");
    let image = cri.image("registry.test/team/app:1").await.unwrap().unwrap();
    assert_eq!(
        (&image.id, image.repo_tags.as_slice()),
        (&id, &["registry.test/team/app:1".into()][..])
    );
    assert!(image.size > 0 && !image.pinned);
    let digest = image.repo_digests.first().expect("it was pulled, so it has one").clone();
    assert!(digest.starts_with("registry.test/team/app@sha256:"), "{digest}");

    cri.remove_image(&id).await.unwrap();
    assert!(cri.all_images().await.unwrap().is_empty());
    assert_eq!(cri.pull(&digest).await.unwrap(), id);
    let image = cri.image(&digest).await.unwrap().unwrap();
    assert!(image.repo_tags.is_empty(), "{:?}", image.repo_tags);
    assert_eq!(image.repo_digests, std::slice::from_ref(&digest));
    for name in [id.as_str(), &id["sha256:".len()..], &id["sha256:".len()..][..12]] {
        assert_eq!(cri.image(name).await.unwrap().map(|it| it.id).as_ref(), Some(&id), "{name}");
    }

    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let container = cri.launch(&pod, &named(sleeps("c"), &id)).await.unwrap();
    assert_eq!(cri.shell(&container, "cat /etc/word").await.unwrap(), "first");
    let status = cri.container(&container).await.unwrap();
    assert_eq!(
        (status.image_id.as_str(), status.image_ref.as_str()),
        (id.as_str(), digest.as_str())
    );
}

#[tokio::test]
async fn a_tag_that_moved_is_the_new_image_and_the_old_one_stays_by_its_digest() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let cri = node.cri();
    registry.push(&app(&node, "old"), "app:latest");
    let old = cri.pull("registry.test/app").await.unwrap();
    registry.push(&app(&node, "new"), "app:latest");
    let new = cri.pull("registry.test/app").await.unwrap();
    assert_ne!(old, new);
    assert_eq!(cri.image("registry.test/app:latest").await.unwrap().unwrap().id, new);
    let old = cri.image(&old).await.unwrap().expect("it is still there");
    assert!(old.repo_tags.is_empty() && old.repo_digests.len() == 1, "{old:?}");
}

#[tokio::test]
async fn a_pull_that_cannot_be_says_why_in_the_kubelets_words() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let Some(mut registry) = Registry::start(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let (cri, layout) = (node.cri(), app(&node, "first"));
    registry.push(&layout, "app:1");
    let before = node.snapshot();

    let why = refused(cri.pull("registry.test/app:2").await, Code::NotFound);
    assert!(why.contains("registry.test/app:2"), "{why}");
    refused(cri.pull("registry.test/never/was:1").await, Code::NotFound);
    let wrong = format!("registry.test/app@sha256:{}", "0123456789abcdef".repeat(4));
    refused(cri.pull(&wrong).await, Code::NotFound);
    refused(cri.pull("registry.test/App:1").await, Code::InvalidArgument);
    refused(cri.pull("").await, Code::InvalidArgument);
    registry.stop();
    let why = refused(cri.pull("registry.test/app:1").await, Code::Unavailable);
    assert!(why.starts_with("RegistryUnavailable"), "{why}");
    assert!(cri.all_images().await.unwrap().is_empty());
    node.assert_untouched(&before, "pulls that could not be").await;
    registry.start_again().await;
    cri.pull("registry.test/app:1").await.expect("the registry is back");
}

#[tokio::test]
async fn a_registry_that_wants_a_password_gets_it_and_nobody_else_does() {
    let Some(node) = Daemon::start_bare(Options::default().set("log", "\"debug\"")).await else {
        return;
    };
    let Some(registry) = Registry::guarded(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let cri = node.cri();
    registry.push(&app(&node, "secret"), "app:1");
    let auth = |username: &str, password: &str| {
        let (username, password) = (username.to_owned(), password.to_owned());
        Some(v1::AuthConfig { username, password, ..Default::default() })
    };
    let refused = async |auth| {
        let why = cri.pull_as("registry.test/app:1", auth).await.expect_err("it is guarded");
        assert!(matches!(why.code(), Code::PermissionDenied | Code::Unauthenticated), "{why}");
        why.message().to_owned()
    };
    refused(None).await;
    let why = refused(auth(USER.0, "open-sesame")).await;
    assert!(!why.contains("open-sesame"), "{why}");
    let id = cri.pull_as("registry.test/app:1", auth(USER.0, USER.1)).await.unwrap();
    cri.remove_image(&id).await.unwrap();
    // `auth` is how docker's own configuration has it: base64 of name and password.
    let encoded = v1::AuthConfig { auth: "cmVhZGVyOnNlc2FtZQ==".into(), ..Default::default() };
    assert_eq!(cri.pull_as("registry.test/app:1", Some(encoded)).await.unwrap(), id);
    refused(None).await;
    let said = node.said();
    for secret in [USER.1, "open-sesame", "cmVhZGVyOnNlc2FtZQ"] {
        assert!(!said.contains(secret), "the log holds a password");
    }
}

#[tokio::test]
async fn eight_who_want_one_image_fetch_each_part_of_it_once() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    let proxy = Proxy::to(registry.port).await;
    lead(&node.place.certs_d(), "registry.test", proxy.port);
    let (cri, layout) = (node.cri(), app(&node, "wanted"));
    registry.push(&layout, "app:1");
    registry.push(&layout, "same:2");
    let names = ["registry.test/app:1", "registry.test/same:2"];
    let pulls = (0..8).map(|n| cri.pull(names[n % 2]));
    for id in join_all(pulls).await {
        assert_eq!(id.unwrap(), layout.config);
    }
    for blob in &layout.layers {
        assert_eq!(proxy.fetched(blob), 1, "{blob}: {:#?}", proxy.requests());
    }
    let image = cri.image(names[0]).await.unwrap().unwrap();
    let mut tags = image.repo_tags;
    tags.sort();
    assert_eq!(tags, names);

    // What is here is not fetched again, also for another image that has it.
    let file: Layer = vec![("etc/more".into(), 0o644, b"more".to_vec())];
    let next = Layout::write(&node.folder("layouts").join("next"), &[busybox_layer(), file]);
    assert_eq!(next.layers[0], layout.layers[0]);
    registry.push(&next, "next:1");
    cri.pull("registry.test/next:1").await.unwrap();
    assert_eq!(proxy.fetched(&next.layers[0]), 1);
    assert_eq!(proxy.fetched(&next.layers[1]), 1);
}

#[tokio::test]
async fn a_pull_whose_client_goes_away_leaves_nothing_and_can_be_done_again() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let cri = node.cri();
    let noise = (0..1_500_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes());
    let noise = noise.collect();
    let layers = [busybox_layer(), vec![("noise".into(), 0o644, noise)]];
    let layout = Layout::write(&node.folder("layouts").join("noise"), &layers);
    registry.push(&layout, "noise:1");
    let before = node.snapshot();
    for millis in [1, 5, 20, 50, 100, 200] {
        let hasty = node.hasty(std::time::Duration::from_millis(millis));
        if hasty.pull("registry.test/noise:1").await.is_ok() {
            cri.remove_image("registry.test/noise:1").await.unwrap();
        }
    }
    cri.remove_image("registry.test/noise:1").await.unwrap();
    node.assert_untouched(&before, "pulls that were given up").await;
    assert_eq!(cri.pull("registry.test/noise:1").await.unwrap(), layout.config);
}

#[tokio::test]
async fn an_image_says_the_same_after_it_was_saved_and_loaded() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let archive = save(&node, IMAGE).await.unwrap();
    cri.remove_image(IMAGE).await.unwrap();
    refused(save(&node, IMAGE).await, Code::NotFound);
    assert_eq!(load(&node, &archive).await.unwrap(), [IMAGE]);
    let id = cri.image(IMAGE).await.unwrap().unwrap().id;
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let container = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let seen = "echo $OF_IMAGE; id web; stat -c %a /tmp; stat -c %h /bin/busybox";
    assert_eq!(
        cri.shell(&container, seen).await.unwrap(),
        "yes\nuid=1000(web) gid=50(web) groups=50(web),60(extra)\n1777\n46"
    );
    assert_eq!(load(&node, &save(&node, IMAGE).await.unwrap()).await.unwrap(), [IMAGE]);
    assert_eq!(cri.image(IMAGE).await.unwrap().unwrap().id, id, "an archive is always the same");

    // Others can read it too.
    if e2e::has("skopeo") {
        let file = node.folder("archives").join("image.tar");
        fs::write(&file, &archive).unwrap();
        let from = format!("oci-archive:{}", file.display());
        let told = e2e::run("skopeo", &["inspect", "--config", &from]);
        assert!(told.contains("OF_IMAGE=yes"), "{told}");
    }
    for broken in [&archive[..archive.len() / 2], b"not an archive", b""] {
        let why = load(&node, broken).await.expect_err("it is broken");
        assert_eq!(why.code(), Code::InvalidArgument, "{why}");
    }
    let tag = admin::TagImageRequest { image: IMAGE.into(), reference: "e2e.test/other:2".into() };
    cri.admin().tag_image(tag).await.unwrap();
    assert_eq!(cri.image("e2e.test/other:2").await.unwrap().unwrap().id, id);
}

async fn save(node: &Daemon, image: &str) -> Result<Vec<u8>, Status> {
    let request = admin::SaveImageRequest { image: image.to_owned() };
    let mut pieces = node.cri().admin().save_image(request).await?.into_inner();
    let mut archive = Vec::new();
    while let Some(piece) = pieces.next().await {
        archive.extend(piece?.chunk);
    }
    Ok(archive)
}

async fn load(node: &Daemon, archive: &[u8]) -> Result<Vec<String>, Status> {
    let pieces = archive.chunks(1 << 20).map(|it| admin::LoadImageRequest { chunk: it.to_vec() });
    let pieces = tokio_stream::iter(pieces.collect::<Vec<_>>());
    Ok(node.cri().admin().load_image(pieces).await?.into_inner().references)
}

#[tokio::test]
async fn an_image_that_is_in_use_lives_until_its_last_container_is_gone() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let id = cri.launch(&pod, &sleeps("c")).await.unwrap();
    cri.remove_image(IMAGE).await.unwrap();
    assert_eq!(cri.image(IMAGE).await.unwrap(), None);
    assert!(cri.all_images().await.unwrap().is_empty(), "it is gone from every list at once");
    assert_eq!(cri.shell(&id, "cat /etc/group | head -n 1").await.unwrap(), "root:x:0:");
    cri.container(&id).await.expect("it can still be looked at");
    refused(cri.create(&pod, &sleeps("late")).await, Code::NotFound);
    let layers = || fs::read_dir(node.place.root().join("images/layers")).unwrap().count();
    assert_eq!(layers(), 1, "the layer is in use");
    cri.remove(&id).await.unwrap();
    e2e::eventually("the layer is gone", async || e2e::is_true(layers() == 0)).await;
    node.make_image().await;
    cri.launch(&pod, &sleeps("late")).await.unwrap();
}

#[tokio::test]
async fn removing_an_image_takes_all_its_names_and_can_be_asked_for_twice() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    for name in ["e2e.test/other:1", "elsewhere.test/same:latest"] {
        let tag = admin::TagImageRequest { image: IMAGE.into(), reference: name.into() };
        cri.admin().tag_image(tag).await.unwrap();
    }
    assert_eq!(cri.image(IMAGE).await.unwrap().unwrap().repo_tags.len(), 3);
    let removals = join_all((0..4).map(|_| cri.remove_image("e2e.test/other:1"))).await;
    removals.into_iter().for_each(|removed| removed.unwrap());
    assert!(cri.all_images().await.unwrap().is_empty());
    cri.remove_image(IMAGE).await.expect("what is gone can be removed");
    cri.remove_image("e2e.test/never-was:1").await.expect("what never was can be removed");
    let request = v1::ImageFsInfoRequest {};
    let usage = cri.images().image_fs_info(request).await.unwrap().into_inner();
    let images = &usage.image_filesystems[0];
    assert!(images.timestamp > 0);
    let root = node.place.root().display().to_string();
    assert!(images.fs_id.as_ref().unwrap().mountpoint.starts_with(&root));
}

#[tokio::test]
async fn images_outlive_the_daemon_that_is_killed_while_it_pulls() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    lead(&node.place.certs_d(), "registry.test", registry.port);
    let layout = app(&node, "kept");
    registry.push(&layout, "app:1");
    for millis in [0, 5, 15, 30, 60] {
        let cri = node.cri();
        let pull = async {
            let _ = cri.pull("registry.test/app:1").await;
        };
        let kill = async {
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            node.kill();
        };
        tokio::join!(pull, kill);
        node.start_again().await;
        let cri = node.cri();
        let kept = cri.image(IMAGE).await.unwrap();
        assert!(kept.is_some(), "after {millis} ms: the other image is there");
        assert_eq!(cri.pull("registry.test/app:1").await.unwrap(), layout.config);
        let pod = cri.run_pod(&node.pod("p")).await.unwrap();
        let id = cri.launch(&pod, &named(sleeps("c"), &layout.config)).await.unwrap();
        assert_eq!(cri.shell(&id, "cat /etc/word").await.unwrap(), "kept");
        cri.remove_pod(&pod).await.unwrap();
        cri.remove_image(&layout.config).await.unwrap();
    }
}

#[tokio::test]
async fn an_image_whose_record_is_torn_is_told_of_and_can_be_removed_and_made_again() {
    let Some(mut node) = Daemon::start(Options::default()).await else { return };
    node.terminate().await;
    let folder = node.place.root().join("images/images");
    let record = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&record).unwrap();
    fs::write(&record, &whole[..whole.len() / 2]).unwrap();
    fs::write(node.place.root().join("records.redb"), "torn too").unwrap();

    node.start_again().await;
    let cri = node.cri();
    let mut held = cri.quarantine().await.unwrap();
    held.sort_by(|a, b| a.key.cmp(&b.key));
    let [file, image] = &held[..] else { panic!("{held:?}") };
    assert_eq!((file.key.as_str(), file.kind.as_str()), ("files/records.redb.damaged", "file"));
    assert!(image.key.starts_with("images/image-") && image.kind == "image", "{image:?}");
    assert!(held.iter().all(|it| it.time > 0 && !it.reason.is_empty()), "{held:?}");
    refused(cri.discard("images/other").await, Code::NotFound);
    for it in &held {
        cri.discard(&it.key).await.unwrap();
    }
    assert_eq!(cri.quarantine().await.unwrap(), []);
    node.make_image().await;
    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    cri.launch(&pod, &sleeps("c")).await.expect("what was removed was made again");
}

#[tokio::test]
async fn an_image_has_one_id_wherever_it_is_told_of_and_is_found_by_all_its_names() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let Some(registry) = Registry::start(&node.folder("registry")).await else { return };
    for host in ["registry.test", "other.test"] {
        lead(&node.place.certs_d(), host, registry.port);
    }
    let (cri, layout) = (node.cri(), app(&node, "first"));
    registry.push(&layout, "team/app:1");
    registry.push(&layout, "app:2");
    let names = ["registry.test/team/app:1", "other.test/app:2"];
    let id = cri.pull(names[0]).await.unwrap();
    assert_eq!(cri.pull(names[1]).await.unwrap(), id, "the same from wherever it comes");
    let image = cri.image(&id).await.unwrap().unwrap();
    assert_eq!((image.id.as_str(), image.repo_digests.len()), (id.as_str(), 2));
    let all_names = image.repo_digests.iter().chain(&image.repo_tags).chain([&id]);
    for name in all_names.clone() {
        let listed = cri.images_like(name).await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&image), "{name}");
    }
    assert!(cri.images_like("registry.test/team/app:2").await.unwrap().is_empty());
    assert_eq!(cri.images_like("").await.unwrap().len(), 1, "no name is no filter");

    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    for (n, name) in all_names.enumerate() {
        let container = cri.create(&pod, &named(sleeps(&format!("c{n}")), name)).await.unwrap();
        assert_eq!(cri.container(&container).await.unwrap().image_id, id, "{name}");
    }
    let listed = cri.containers().await.unwrap();
    assert!(listed.len() == 5 && listed.iter().all(|container| container.image_id == id));

    for name in [&image.repo_digests[1], &image.repo_tags[0], &id, &id["sha256:".len()..].into()] {
        cri.remove_image(name).await.unwrap();
        assert!(cri.all_images().await.unwrap().is_empty(), "{name} stands for all of them");
        cri.remove_image(name).await.expect("what is gone can be removed");
        assert_eq!(cri.pull(names[0]).await.unwrap(), id);
        assert_eq!(cri.pull(names[1]).await.unwrap(), id);
    }
}

#[tokio::test]
async fn the_pause_image_is_pinned_for_as_long_as_it_is_and_removed_if_asked() {
    let options = Options::default().set("images.pause_image", &format!("{IMAGE:?}"));
    let Some(mut node) = Daemon::start(options).await else { return };
    let other = admin::MakeImageRequest { reference: "e2e.test/o:1".into(), ..Default::default() };
    node.cri().make_image(other).await.unwrap();
    let pinned = async |node: &Daemon, name: &str| {
        let image = node.cri().image(name).await.unwrap().unwrap();
        let listed = node.cri().images_like(name).await.unwrap();
        assert_eq!(listed[0].pinned, image.pinned);
        image.pinned
    };
    assert!(pinned(&node, IMAGE).await && !pinned(&node, "e2e.test/o:1").await);
    node.cri().remove_image(IMAGE).await.expect("a pin is advice, and whoever asks has it gone");
    assert_eq!(node.cri().image(IMAGE).await.unwrap(), None);
    node.make_image().await;
    assert!(pinned(&node, IMAGE).await);
    node.kill();
    node.set("images.pause_image", "\"e2e.test/o:1\"");
    node.start_again().await;
    assert!(!pinned(&node, IMAGE).await && pinned(&node, "e2e.test/o:1").await);
}

#[tokio::test]
async fn what_containers_write_is_counted_apart_from_images_on_one_filesystem() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let value = |value: Option<v1::UInt64Value>| value.expect("it is told").value;
    let used = |usage: v1::FilesystemUsage| (value(usage.used_bytes), value(usage.inodes_used));
    let [images, containers] = cri.disk().await.unwrap();
    assert!(images.timestamp > 0 && containers.timestamp > 0);
    assert_eq!(images.fs_id, containers.fs_id, "the kubelet tells one filesystem from two by this");
    let root = node.place.root().display().to_string();
    assert!(images.fs_id.clone().unwrap().mountpoint.starts_with(&root));
    let (image_bytes, image_inodes) = used(images);
    assert!(image_bytes > 100_000 && image_inodes > 40, "{image_bytes} {image_inodes}");
    assert_eq!(used(containers), (0, 0));

    let pod = cri.run_pod(&node.pod("p")).await.unwrap();
    let line = "mkdir /new; for n in $(seq 10); do head -c 300000 /dev/zero > /new/$n; done; sync";
    for name in ["a", "b"] {
        let id = cri.launch(&pod, &sleeps(name)).await.unwrap();
        cri.shell(&id, line).await.unwrap();
    }
    let grown = async || {
        let [images, containers] = cri.disk().await.unwrap();
        assert_eq!(used(images).0, image_bytes, "they are not the images'");
        let (bytes, inodes) = used(containers);
        (bytes >= 6_000_000).then_some((bytes, inodes))
    };
    let (bytes, inodes) = e2e::eventually("what was written is counted", grown).await;
    assert!(bytes < 8_000_000 && (22..60).contains(&inodes), "{bytes} {inodes}");
    cri.remove_pod(&pod).await.unwrap();
    let [_, containers] = cri.disk().await.unwrap();
    assert_eq!(used(containers), (0, 0));
}
