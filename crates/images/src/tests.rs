//! Images as others use them: pulled from a registry in memory, mounted by the kernel, found again
//! after a restart.

mod volumes;

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use names::Class;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::testing::{Fake, Tar, digest, eventually, gzip};

const LONG: Duration = Duration::from_secs(20);

/// A store, a registry, and a place to mount at.
struct Bench {
    dir: tempfile::TempDir,
    fake: Fake,
    images: Option<Images>,
    keep: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::new());
        let mut bench = Bench { dir, fake, images: None, keep: Vec::new() };
        bench.open();
        bench
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn open(&mut self) {
        self.images = None;
        let config = Config { keep: self.keep.clone(), ..Config::new(self.at("images")) };
        let images = Images::open(config, self.fake.clone());
        self.images = Some(images.unwrap());
    }

    fn images(&self) -> &Images {
        self.images.as_ref().unwrap()
    }

    async fn pull(&self, reference: &str) -> Result<Digest, Error> {
        let reference = reference.parse().unwrap();
        timeout(LONG, self.images().pull(&reference, None, None)).await.expect("a pull in time")
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at("images").join(dir)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn nothing_in_tmp(&self) -> bool {
        self.names("tmp").is_empty()
    }

    fn target(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.at(name)).unwrap();
        self.at(name)
    }

    async fn mount(&self, id: &Digest, name: &str) -> PathBuf {
        let target = self.target(name);
        let access = Access::Writable;
        self.images().mount(id, &container(name), &target, access).await.unwrap();
        target
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let _ = sys::mount::unmount(&entry.unwrap().path());
        }
    }
}

fn container(name: &str) -> ContainerId {
    ContainerId::from_bytes([u8::try_from(name.len()).unwrap(); 32])
}

fn one(body: &str) -> Vec<u8> {
    Tar::new().dir("./").file("file", body).end()
}

#[tokio::test]
async fn a_pulled_image_is_listed_found_and_removed() {
    let bench = Bench::new();
    let (id, manifest) = bench.fake.image("r.io/app:1", &[one("a"), one("b")]);
    assert_eq!(bench.pull("r.io/app:1").await.unwrap(), id);
    let image = bench.images().find("r.io/app:1").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.tags, ["r.io/app:1".parse().unwrap()]);
    assert_eq!(image.digests, [format!("r.io/app@{manifest}").parse().unwrap()]);
    assert_eq!(image.config.env, ["A=b"]);
    assert_eq!(image.layers, [digest(&one("a")), digest(&one("b"))]);
    assert!(image.size > 0 && bench.images().usage().inodes >= 4);
    assert_eq!(bench.images().list().len(), 1);
    assert!(bench.nothing_in_tmp());
    bench.images().remove("r.io/app:1").await.unwrap();
    bench.images().remove("r.io/app:1").await.unwrap();
    assert!(bench.images().list().is_empty() && bench.names("layers").is_empty());
    assert_eq!(bench.images().usage(), Usage::default());
}

#[tokio::test]
async fn a_pull_by_digest_has_no_tag() {
    let bench = Bench::new();
    let (id, manifest) = bench.fake.image("r.io/app:1", &[one("a")]);
    let reference = format!("r.io/app@{manifest}");
    assert_eq!(bench.pull(&reference).await.unwrap(), id);
    let image = bench.images().find(&reference).unwrap();
    assert!(image.tags.is_empty());
    assert_eq!(image.digests, [reference.parse().unwrap()]);
    assert!(bench.images().find("r.io/app:1").is_none());
}

#[tokio::test]
async fn the_same_image_from_two_registries_is_one_with_the_names_of_both() {
    let bench = Bench::new();
    let (id, _) = bench.fake.image("one.io/pause:3", &[one("a")]);
    assert_eq!(bench.fake.image("two.io/pause:3", &[one("a")]).0, id);
    bench.pull("one.io/pause:3").await.unwrap();
    bench.pull("two.io/pause:3").await.unwrap();
    let all = bench.images().list();
    assert_eq!((all.len(), all[0].tags.len(), all[0].digests.len()), (1, 2, 2));
    bench.images().remove("two.io/pause:3").await.unwrap();
    assert!(bench.images().find("one.io/pause:3").is_none());
}

#[tokio::test]
async fn a_tag_that_moves_is_taken_from_the_image_that_had_it() {
    let mut bench = Bench::new();
    let (old, _) = bench.fake.image("r.io/app:1", &[one("old")]);
    bench.pull("r.io/app:1").await.unwrap();
    let (new, _) = bench.fake.image("r.io/app:1", &[one("new")]);
    bench.pull("r.io/app:1").await.unwrap();
    for _ in 0..2 {
        assert_eq!(bench.images().find("r.io/app:1").unwrap().id, new);
        let untagged = bench.images().find(old.as_str()).unwrap();
        assert!(untagged.tags.is_empty() && !untagged.digests.is_empty());
        bench.open();
    }
}

#[tokio::test]
async fn an_index_leads_to_the_manifest_for_this_host() {
    let bench = Bench::new();
    let (id, manifest) = bench.fake.image("r.io/app:only", &[one("a")]);
    let size = bench.fake.size_of("r.io/app:only");
    let host = manifest::host();
    let index = json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [
        { "mediaType": manifest::OCI_MANIFEST, "digest": digest(b"other"), "size": 1,
          "platform": { "os": "linux", "architecture": "s390x" } },
        { "mediaType": manifest::OCI_MANIFEST, "digest": manifest, "size": size,
          "platform": { "os": "linux", "architecture": host.architecture } },
    ]});
    let top = bench.fake.manifest("r.io/app:all", manifest::OCI_INDEX, &index);
    assert_eq!(bench.pull("r.io/app:all").await.unwrap(), id);
    let image = bench.images().find("r.io/app:all").unwrap();
    assert_eq!(image.digests, [format!("r.io/app@{top}").parse().unwrap()]);
    let foreign = json!({ "schemaVersion": 2, "manifests": [index["manifests"][0]] });
    bench.fake.manifest("r.io/app:foreign", manifest::OCI_INDEX, &foreign);
    let error = bench.pull("r.io/app:foreign").await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[tokio::test]
async fn whatever_lies_about_its_digest_is_refused_and_leaves_nothing() {
    let (good, bad) = (gzip(&one("good")), gzip(&one("evil")));
    let half = gzip(&one("good"))[..20].to_vec();
    let long = [good.clone(), vec![0; 100]].concat();
    for lie in [bad, half, long, b"garbage".to_vec(), Vec::new()] {
        let bench = Bench::new();
        bench.fake.image("r.io/app:1", &[one("good")]);
        bench.fake.lie(&digest(&good), &lie);
        let error = bench.pull("r.io/app:1").await.unwrap_err();
        assert_eq!(error.class(), Class::DataLoss, "{error:?}");
        assert!(bench.images().list().is_empty() && bench.names("layers").is_empty());
        eventually("tmp is empty", || bench.nothing_in_tmp()).await;
        bench.fake.lie(&digest(&good), &good);
        bench.pull("r.io/app:1").await.unwrap();
    }
}

#[tokio::test]
async fn a_config_that_lies_about_its_layers_is_refused() {
    let bench = Bench::new();
    let blob = bench.fake.descriptor(gzip(&one("a")), &format!("{}+gzip", manifest::OCI_LAYER));
    for (diffs, class) in [
        (json!([digest(b"another")]), Class::DataLoss),
        (json!([]), Class::InvalidArgument),
        (json!(["sha256:../../../etc"]), Class::InvalidArgument),
    ] {
        let config = json!({ "rootfs": { "diff_ids": diffs } }).to_string().into_bytes();
        let config = bench.fake.descriptor(config, manifest::OCI_CONFIG);
        let body = json!({ "schemaVersion": 2, "config": config, "layers": [blob] });
        bench.fake.manifest("r.io/liar:1", manifest::OCI_MANIFEST, &body);
        let error = bench.pull("r.io/liar:1").await.unwrap_err();
        assert_eq!(error.class(), class, "{error:?}");
        assert!(bench.names("layers").is_empty());
    }
}

#[tokio::test]
async fn a_broken_or_hostile_layer_is_refused_quickly() {
    let archive = one("a");
    let mut wrong_sum = gzip(&archive);
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    let mut wrong_size = gzip(&archive);
    let at = wrong_size.len() - 1;
    wrong_size[at] ^= 1;
    let cut = gzip(&archive)[..30].to_vec();
    let tail = [gzip(&archive), b"tail".to_vec()].concat();
    let xz = [b"\xfd7zXZ\0".to_vec(), vec![7; 600]].concat();
    let escape = gzip(&Tar::new().file("../x", "x").end());
    for blob in [wrong_sum, wrong_size, cut, tail, xz, escape, vec![0x28, 0xb5, 0x2f, 0xfd, 9, 9]] {
        let bench = Bench::new();
        let layer = bench.fake.descriptor(blob, &format!("{}+gzip", manifest::OCI_LAYER));
        let config = json!({ "rootfs": { "diff_ids": [digest(&archive)] } });
        let config = bench.fake.descriptor(config.to_string().into(), manifest::OCI_CONFIG);
        let body = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        bench.fake.manifest("r.io/bad:1", manifest::OCI_MANIFEST, &body);
        let pulled = timeout(Duration::from_secs(5), bench.pull("r.io/bad:1")).await;
        let error = pulled.expect("an error within 5 s").unwrap_err();
        assert_eq!(error.class(), Class::InvalidArgument, "{error:?}");
        assert!(bench.names("layers").is_empty());
        eventually("tmp is empty", || bench.nothing_in_tmp()).await;
        assert!(!bench.at("x").exists() && !bench.at("images/tmp/x").exists());
    }
}

#[tokio::test]
async fn every_way_of_compression_gives_the_same_layer() {
    let archive = Tar::new().file("file", &"contents".repeat(1000)).end();
    let (first, second) = archive.split_at(1000);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skippable = [vec![0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0], b"toc!".to_vec()].concat();
    for blob in [
        archive.clone(),
        gzip(&archive),
        [gzip(first), gzip(second)].concat(),
        zstd(&archive),
        [zstd(first), zstd(second)].concat(),
        [skippable.clone(), zstd(&archive)].concat(),
        [zstd(&archive), skippable].concat(),
    ] {
        let bench = Bench::new();
        let layer = bench.fake.descriptor(blob, manifest::OCI_LAYER);
        let config = json!({ "rootfs": { "diff_ids": [digest(&archive)] } });
        let config = bench.fake.descriptor(config.to_string().into(), manifest::OCI_CONFIG);
        let body = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        bench.fake.manifest("r.io/app:1", manifest::OCI_MANIFEST, &body);
        bench.pull("r.io/app:1").await.unwrap();
    }
}

#[tokio::test]
async fn a_bomb_is_stopped() {
    let mut bench = Bench::new();
    bench.images = None;
    let mut config = Config::new(bench.at("images"));
    config.limits = Limits { free: 1 << 20, ratio: 20, ..Limits::default() };
    bench.images = Some(Images::open(config, bench.fake.clone()).unwrap());
    bench.fake.image("r.io/bomb:1", &[Tar::new().file("zeros", &"\0".repeat(64 << 20)).end()]);
    let error = bench.pull("r.io/bomb:1").await.unwrap_err();
    assert!(error.to_string().contains("unpacks to more"), "{error}");
    eventually("tmp is empty", || bench.nothing_in_tmp()).await;
}

#[tokio::test]
async fn a_layer_is_downloaded_once_however_many_want_it() {
    let bench = Bench::new();
    let shared = one("shared");
    for n in 0..4 {
        bench.fake.image(&format!("r.io/app:{n}"), &[shared.clone(), one(&n.to_string())]);
    }
    let blob = digest(&gzip(&shared));
    let gate = bench.fake.gate(&blob);
    let pulls = (0..12).map(|n| {
        let images = bench.images().clone();
        tokio::spawn(async move {
            let reference = format!("r.io/app:{}", n % 4).parse().unwrap();
            images.pull(&reference, None, None).await
        })
    });
    let pulls: Vec<_> = pulls.collect();
    eventually("the shared layer is asked for", || bench.fake.given(&blob) > 0).await;
    gate.notify_one();
    for pull in pulls {
        timeout(LONG, pull).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(bench.fake.given(&blob), 1);
    // A config and a layer of its own for each image, and the shared one.
    assert_eq!(bench.fake.given_in_all(), 4 + 4 + 1);
}

#[tokio::test]
async fn a_pull_goes_on_for_those_who_still_wait_and_ends_with_the_last() {
    let bench = Bench::new();
    bench.fake.image("r.io/app:1", &[one("a")]);
    let blob = digest(&gzip(&one("a")));
    let gate = bench.fake.gate(&blob);
    let begin = || {
        let images = bench.images().clone();
        tokio::spawn(async move { images.pull(&"r.io/app:1".parse().unwrap(), None, None).await })
    };
    let (one_of_two, other) = (begin(), begin());
    eventually("half of the layer is there", || !bench.nothing_in_tmp()).await;
    one_of_two.abort();
    let _ = one_of_two.await;
    gate.notify_one();
    timeout(LONG, other).await.unwrap().unwrap().unwrap();
    assert_eq!(bench.fake.given(&blob), 1);
    bench.images().remove("r.io/app:1").await.unwrap();

    bench.fake.gate(&blob);
    let only = begin();
    eventually("half of the layer is there", || !bench.nothing_in_tmp()).await;
    only.abort();
    let _ = only.await;
    eventually("tmp is empty", || bench.nothing_in_tmp()).await;
    assert!(bench.images().list().is_empty() && bench.names("layers").is_empty());
    bench.fake.gate(&blob).notify_one();
    bench.pull("r.io/app:1").await.unwrap();
}

#[tokio::test]
async fn a_pull_that_is_cancelled_at_any_moment_leaves_nothing_half_made() {
    let bench = Bench::new();
    let archives: Vec<_> = (0..4).map(|n| one(&n.to_string())).collect();
    bench.fake.image("r.io/app:1", &archives);
    for n in 0..200u64 {
        let pull = bench.pull("r.io/app:1");
        let _ = timeout(Duration::from_micros(n * 37 % 4000), pull).await;
        if n % 10 == 0 {
            bench.images().remove("r.io/app:1").await.unwrap();
        }
    }
    eventually("tmp is empty", || bench.nothing_in_tmp()).await;
    bench.pull("r.io/app:1").await.unwrap();
    bench.images().remove("r.io/app:1").await.unwrap();
    assert!(bench.names("layers").is_empty() && bench.names("images").is_empty());
}

#[tokio::test]
async fn anothers_bad_credentials_do_not_fail_a_pull() {
    let bench = Bench::new();
    bench.fake.image("r.io/app:1", &[one("a")]);
    let blob = digest(&gzip(&one("a")));
    let gate = bench.fake.gate(&blob);
    let images = bench.images().clone();
    let bad = Auth { password: "wrong".into(), ..Auth::default() };
    let denied =
        tokio::spawn(
            async move { images.pull(&"r.io/app:1".parse().unwrap(), Some(bad), None).await },
        );
    eventually("the layer is asked for", || bench.fake.given(&blob) == 1).await;
    let good = bench.pull("r.io/app:1");
    let both = async {
        let good = async {
            let result = good.await;
            result.unwrap();
        };
        let opened = async {
            tokio::task::yield_now().await;
            gate.notify_one();
            let error = denied.await.unwrap().unwrap_err();
            assert_eq!(error.class(), Class::PermissionDenied, "{error:?}");
        };
        tokio::join!(good, opened);
    };
    timeout(LONG, both).await.unwrap();
}

#[tokio::test]
async fn progress_is_told_to_its_end() {
    let bench = Bench::new();
    bench.fake.image("r.io/app:1", &[one("a"), one("b")]);
    let (told, seen) = watch::channel(Progress::default());
    bench.images().pull(&"r.io/app:1".parse().unwrap(), None, Some(told)).await.unwrap();
    let progress = seen.borrow().clone();
    assert_eq!(progress.layers.len(), 2);
    assert!(progress.layers.iter().all(|layer| layer.state == LayerState::Done), "{progress:?}");
    let (come, total) = progress.bytes();
    assert!(come == total && total > 0);
}

#[tokio::test]
async fn removes_at_the_same_time_all_succeed() {
    let bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    let removes = (0..20).map(|n| {
        let (images, text) = (bench.images().clone(), id.to_string());
        let text = if n % 2 == 0 { text } else { "r.io/app:1".to_owned() };
        tokio::spawn(async move { images.remove(&text).await })
    });
    for remove in removes.collect::<Vec<_>>() {
        remove.await.unwrap().unwrap();
    }
    assert!(bench.images().list().is_empty() && bench.nothing_in_tmp());
}

#[tokio::test]
async fn removing_during_a_pull_leaves_a_whole_image_or_none() {
    let bench = Bench::new();
    bench.fake.image("r.io/app:1", &[one("a"), one("b")]);
    for _ in 0..50 {
        let images = bench.images().clone();
        let remove = tokio::spawn(async move { images.remove("r.io/app:1").await });
        bench.pull("r.io/app:1").await.unwrap();
        remove.await.unwrap().unwrap();
        for image in bench.images().list() {
            for layer in &image.layers {
                assert!(bench.at("images/layers").join(layer.hex()).join("fs").is_dir());
            }
        }
    }
}

#[tokio::test]
async fn an_image_is_pinned_for_as_long_as_it_has_a_name_that_is_kept() {
    let mut bench = Bench::new();
    let (old, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.keep = vec!["r.io/app:1".to_owned()];
    let pinned = |bench: &Bench, id: &Digest| bench.images().find(id.as_str()).unwrap().pinned;
    bench.pull("r.io/app:1").await.unwrap();
    assert!(!pinned(&bench, &old), "nobody keeps it yet");
    bench.open();
    assert!(pinned(&bench, &old));
    let (new, _) = bench.fake.image("r.io/app:1", &[one("b")]);
    bench.pull("r.io/app:1").await.unwrap();
    assert!(pinned(&bench, &new) && !pinned(&bench, &old), "the name has moved");
    bench.keep = vec![old.to_string()];
    bench.open();
    assert!(pinned(&bench, &old) && !pinned(&bench, &new), "an id is a name too");
    bench.images().remove(old.as_str()).await.unwrap();
    assert!(bench.images().find(old.as_str()).is_none(), "who asks for its removal has it");
}

#[tokio::test]
async fn an_overlay_shows_the_layers_as_they_are_meant() {
    let bench = Bench::new();
    let bottom = Tar::new()
        .with(tar::EntryType::Directory, "./", |h| h.set_mode(0o750))
        .file("gone", "x")
        .file("kept", "bottom")
        .dir("dir")
        .file("dir/old", "x")
        .dir("merged")
        .file("merged/old", "x")
        .file("replaced/old", "x")
        .file("was-file", "x")
        .end();
    let top = Tar::new()
        .file(".wh.gone", "")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "x")
        .file("merged/new", "x")
        .file(".wh.replaced", "")
        .file("replaced/new", "x")
        .dir("was-file")
        .end();
    let (id, _) = bench.fake.image("r.io/app:1", &[bottom, top]);
    bench.pull("r.io/app:1").await.unwrap();
    let target = bench.mount(&id, "m").await;
    let names = |dir: &str| {
        let mut names: Vec<_> = fs::read_dir(target.join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(""), "dir kept merged replaced was-file");
    assert_eq!(names("dir"), "new");
    assert_eq!(names("merged"), "new old");
    assert_eq!(names("replaced"), "new");
    assert!(target.join("was-file").is_dir());
    assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o750);
    fs::write(target.join("written"), "by the container").unwrap();
    let used = bench.images().container_usage(&container("m")).await.unwrap();
    assert!(used.inodes == 1 && used.bytes >= 16, "{used:?}");
    bench.images().unmount(&container("m"), &target).await.unwrap();
    bench.images().unmount(&container("m"), &target).await.unwrap();
    assert!(bench.names("containers").is_empty() && bench.nothing_in_tmp());
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

#[tokio::test]
async fn directories_that_a_layer_only_implies_keep_their_attributes() {
    use tar::EntryType::Directory;
    let mut bench = Bench::new();
    let bottom = Tar::new()
        .with(Directory, "tmp", |h| h.set_mode(0o1777))
        .with(Directory, "home", |h| h.set_mode(0o711))
        .with(Directory, "home/user", |h| {
            h.set_mode(0o700);
            h.set_uid(1000);
        })
        .with(Directory, "gone", |h| h.set_mode(0o700))
        .with(Directory, "opaque", |h| h.set_mode(0o700))
        .end();
    let middle = Tar::new().file("tmp/a", "x").file("home/user/a", "x").file("gone/a", "x").end();
    let top = Tar::new()
        .file("tmp/b", "x")
        .file(".wh.gone", "")
        .file(".wh.opaque", "")
        .file("opaque/a", "x")
        .end();
    let (id, _) = bench.fake.image("r.io/app:1", &[bottom, middle, top]);
    bench.pull("r.io/app:1").await.unwrap();
    bench.open();
    let target = bench.mount(&id, "m").await;
    let mode = |path: &str| target.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("home"), mode("home/user")), (0o1777, 0o711, 0o700));
    assert_eq!(target.join("home/user").metadata().unwrap().uid(), 1000);
    assert!(target.join("tmp/a").exists() && target.join("tmp/b").exists());
    assert!(!target.join("gone").exists(), "what is gone stays so");
    assert_eq!(mode("opaque"), 0o755, "it is a new directory");
    assert_eq!(bench.names("layers").len(), 4);
    assert_eq!(bench.images().list()[0].layers.len(), 3);
    bench.images().unmount(&container("m"), &target).await.unwrap();
    bench.images().remove("r.io/app:1").await.unwrap();
    assert!(bench.names("layers").is_empty());
}

#[tokio::test]
async fn an_opaque_root_hides_all_layers_beneath() {
    let bench = Bench::new();
    let top = Tar::new().file(".wh..wh..opq", "").file("new", "x").end();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("old"), top]);
    bench.pull("r.io/app:1").await.unwrap();
    let target = bench.mount(&id, "m").await;
    assert!(target.join("new").exists() && !target.join("file").exists());
}

#[tokio::test]
async fn sixty_layers_and_repeated_ones_are_mounted() {
    let bench = Bench::new();
    let mut archives: Vec<_> = (0..60)
        .map(|n| Tar::new().file(&format!("f{n}"), "x").file("last", &n.to_string()).end())
        .collect();
    archives.push(archives[3].clone());
    let (id, _) = bench.fake.image("r.io/app:1", &archives);
    bench.pull("r.io/app:1").await.unwrap();
    let target = bench.mount(&id, "m").await;
    assert!((0..60).all(|n| target.join(format!("f{n}")).exists()));
    assert_eq!(fs::read_to_string(target.join("last")).unwrap(), "3");
}

#[tokio::test]
async fn an_image_of_nothing_and_a_read_only_one_are_mounted() {
    let bench = Bench::new();
    let (empty, _) = bench.fake.image("r.io/scratch:1", &[]);
    let (single, _) = bench.fake.image("r.io/single:1", &[one("a")]);
    bench.pull("r.io/scratch:1").await.unwrap();
    bench.pull("r.io/single:1").await.unwrap();
    let target = bench.mount(&empty, "m").await;
    fs::write(target.join("new"), "x").unwrap();
    for (id, name) in [(&empty, "ro"), (&single, "ro1")] {
        let target = bench.target(name);
        let access = Access::ReadOnly;
        bench.images().mount(id, &container(name), &target, access).await.unwrap();
        assert!(fs::write(target.join("new"), "x").is_err());
        let used = bench.images().container_usage(&container(name)).await.unwrap();
        assert_eq!(used, Usage::default());
    }
}

#[tokio::test]
async fn layers_of_a_removed_image_stay_until_its_containers_are_gone() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    let target = bench.mount(&id, "m").await;
    bench.images().remove("r.io/app:1").await.unwrap();
    assert!(bench.images().list().is_empty());
    bench.open();
    assert_eq!(bench.images().containers(), [container("m")]);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "a");
    let mounted = bench.images().mount(&id, &container("m"), &target, Access::Writable).await;
    assert_eq!(mounted.unwrap_err().class(), Class::AlreadyExists);
    bench.images().unmount(&container("m"), &target).await.unwrap();
    assert!(bench.names("layers").is_empty());
}

#[tokio::test]
async fn a_mount_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    let missing = bench.at("missing");
    let mounted = bench.images().mount(&id, &container("m"), &missing, Access::Writable).await;
    assert!(mounted.is_err());
    assert!(bench.names("containers").is_empty() && bench.images().containers().is_empty());
    let unknown = digest(b"");
    let mounted = bench.images().mount(&unknown, &container("m"), &missing, Access::Writable).await;
    assert_eq!(mounted.unwrap_err().class(), Class::NotFound);
}

#[tokio::test]
async fn a_restart_undoes_what_was_half_done_and_keeps_what_it_cannot_read() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    let (other, _) = bench.fake.image("r.io/other:1", &[one("b")]);
    bench.pull("r.io/app:1").await.unwrap();
    bench.pull("r.io/other:1").await.unwrap();
    let root = bench.at("images");
    bench.images = None;
    fs::create_dir_all(root.join("tmp/half/fs/deep")).unwrap();
    fs::create_dir_all(root.join("containers").join(container("m").as_str()).join("upper"))
        .unwrap();
    fs::create_dir_all(root.join("layers").join(digest(b"orphan").hex())).unwrap();
    let record = root.join("images").join(format!("{}.json", other.hex()));
    let torn = fs::read(&record).unwrap();
    fs::write(&record, &torn[..torn.len() / 2]).unwrap();
    fs::write(root.join("images/stray"), "x").unwrap();
    bench.open();
    eventually("tmp is empty", || bench.nothing_in_tmp()).await;
    let all = bench.images().list();
    assert_eq!((all.len(), &all[0].id), (1, &id));
    assert!(bench.names("containers").is_empty());
    let set_aside = bench.images().quarantined().await.unwrap();
    assert_eq!(set_aside.len(), 3, "{set_aside:?}");
    assert!(set_aside.iter().all(|kept| kept.path.exists() && !kept.why.is_empty()));
    bench.pull("r.io/other:1").await.unwrap();
    assert_eq!(bench.fake.given(&digest(&gzip(&one("b")))), 1, "its layer was still there");
    bench.open();
    assert_eq!(bench.images().list().len(), 2);
    assert_eq!(bench.images().quarantined().await.unwrap(), set_aside);
}

#[tokio::test]
async fn what_was_set_aside_is_kept_until_it_is_removed_by_its_name() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    let root = bench.at("images");
    bench.images = None;
    fs::write(root.join("images").join(format!("{}.json", id.hex())), "torn").unwrap();
    let layer = root.join("layers").join(digest(&one("a")).hex());
    fs::remove_file(layer.join("layer.json")).unwrap();
    bench.open();
    let set_aside = bench.images().quarantined().await.unwrap();
    let mut kinds: Vec<_> = set_aside.iter().map(|held| held.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["image", "layer"]);
    for stranger in ["", ".", "../layers", &format!("{}.why", set_aside[0].name)] {
        let refused = bench.images().discard_quarantined(stranger).await;
        assert!(matches!(refused, Err(Error::NotInQuarantine(_))), "{stranger}");
    }
    for held in &set_aside {
        assert!(held.at > 0, "{held:?}");
        bench.images().discard_quarantined(&held.name).await.unwrap();
        let again = bench.images().discard_quarantined(&held.name).await;
        assert!(matches!(again, Err(Error::NotInQuarantine(_))));
    }
    assert!(bench.names("quarantine").is_empty() && bench.nothing_in_tmp());
}

#[tokio::test]
async fn an_image_whose_layer_is_gone_is_set_aside_and_can_be_pulled_again() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    bench.images = None;
    fs::remove_dir_all(bench.at("images/layers").join(digest(&one("a")).hex())).unwrap();
    bench.open();
    assert!(bench.images().list().is_empty());
    assert!(bench.images().quarantined().await.unwrap()[0].why.contains("missing"));
    assert_eq!(bench.pull("r.io/app:1").await.unwrap(), id);
}

#[tokio::test]
async fn what_is_no_record_at_all_is_set_aside_and_the_store_opens() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    let root = bench.at("images");
    bench.images = None;
    fs::write(root.join("layers").join(digest(b"a file").hex()), "no folder").unwrap();
    let image = format!("{}.json", digest(b"a folder").hex());
    fs::create_dir(root.join("images").join(&image)).unwrap();
    let link = format!("{}.json", digest(b"a link").hex());
    std::os::unix::fs::symlink("/dev/null", root.join("images").join(link)).unwrap();
    fs::write(root.join("containers").join(container("c").as_str()), "no folder").unwrap();
    bench.open();
    assert_eq!(bench.images().list()[0].id, id);
    assert_eq!(bench.images().quarantined().await.unwrap().len(), 3);
    let left = bench.images().containers();
    assert_eq!(left, [container("c")], "its owner may release it");
    bench.images().unmount(&left[0], &root.join("nowhere")).await.unwrap();
    assert!(bench.names("containers").is_empty());
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_not_touched() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    bench.images = None;
    let root = bench.at("images");
    fs::write(root.join("tmp/kept"), "x").unwrap();
    let record = root.join("images").join(format!("{}.json", id.hex()));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replacen("\"version\":1", "\"version\":9", 1)).unwrap();
    let error = Images::open(Config::new(&root), bench.fake.clone()).err().unwrap();
    assert_eq!(error.class(), Class::FailedPrecondition);
    assert!(error.to_string().contains("version 9"), "{error}");
    assert!(root.join("tmp/kept").exists() && record.exists());
}

#[tokio::test]
async fn a_store_is_used_by_one_process_and_seen_by_root_only() {
    let bench = Bench::new();
    let error = Images::open(Config::new(bench.at("images")), Fake::new()).err().unwrap();
    assert!(matches!(error, Error::InUse(_)), "{error}");
    for dir in ["", "layers", "images", "containers", "tmp", "quarantine"] {
        let meta = bench.at("images").join(dir).metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o700, "{dir}");
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_recovers() {
    let bench = Bench::new();
    let disk = bench.target("disk");
    let tmpfs = sys::mount::Tmpfs {
        size: Some(4 << 20),
        inodes: None,
        mode: 0o755,
        attributes: sys::mount::Attributes::default(),
    };
    tmpfs.make().unwrap().attach(&disk).unwrap();
    let mut config = Config::new(disk.join("images"));
    config.limits.reserve = 0;
    let images = Images::open(config, bench.fake.clone()).unwrap();
    let pull = async |reference: &str| {
        timeout(LONG, images.pull(&reference.parse().unwrap(), None, None)).await.unwrap()
    };
    bench.fake.image("r.io/small:1", &[one("a")]);
    bench.fake.image("r.io/large:1", &[Tar::new().file("large", &"x".repeat(8 << 20)).end()]);
    pull("r.io/small:1").await.unwrap();
    let error = pull("r.io/large:1").await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted, "{error:?}");
    assert!(error.to_string().contains(disk.to_str().unwrap()), "{error}");
    let tmp = || fs::read_dir(disk.join("images/tmp")).unwrap().count();
    eventually("tmp is empty", || tmp() == 0).await;
    pull("r.io/small:1").await.unwrap();
    // With no byte free at all an image can still be removed.
    let filled = fs::write(disk.join("filler"), vec![1u8; 8 << 20]);
    assert!(filled.is_err());
    images.remove("r.io/small:1").await.unwrap();
    fs::remove_file(disk.join("filler")).unwrap();
    pull("r.io/small:1").await.unwrap();
    drop(images);
}
