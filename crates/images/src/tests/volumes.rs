//! Image volumes, as a container sees them and as what it counts on.

use sys::userns::Maps;

use super::*;

/// An image with a folder, a file, and links of every kind in it.
fn links() -> Vec<u8> {
    Tar::new()
        .dir("etc/")
        .file("etc/passwd", "of the image")
        .dir("data/")
        .dir("data/deep/")
        .file("data/deep/file", "deep")
        .symlink("up", "../../../../etc")
        .symlink("host", "/etc")
        .symlink("short", "data/deep")
        .symlink("round", "round")
        .symlink("nowhere", "/not/here")
        .end()
}

impl Bench {
    async fn volume_of(&self, id: &Digest, sub_path: &str) -> Result<PathBuf, Error> {
        let (target, seen) = (self.target("root"), self.target("seen"));
        let (image, sub_path) = (id.clone(), PathBuf::from(sub_path));
        let volumes = vec![Volume { image, sub_path, target: seen.clone() }];
        let (images, name) = (self.images(), container("m"));
        images
            .mount_rootfs(&name, rootfs(id, &target, Access::Writable, volumes))
            .await
            .map(|()| seen)
    }

    async fn gone(&self) {
        self.images().unmount(&container("m"), &self.at("root")).await.unwrap();
        for name in ["root", "seen"] {
            assert!(!sys::mount::is_mounted(&self.at(name)).unwrap(), "{name}");
        }
    }
}

fn rootfs(image: &ImageId, target: &Path, access: Access, volumes: Vec<Volume>) -> Rootfs {
    let (image, target) = (image.clone(), target.to_owned());
    Rootfs { image, target, access, volumes, owners: Maps::default() }
}

#[tokio::test]
async fn a_volume_is_an_image_and_nobody_can_write_to_it() {
    let bench = Bench::new();
    let (one, _) = bench.fake.image("r.io/one:1", &[one("a")]);
    let (two, _) =
        bench.fake.image("r.io/two:1", &[links(), Tar::new().file("data/.wh.deep", "").end()]);
    for name in ["r.io/one:1", "r.io/two:1"] {
        bench.pull(name).await.unwrap();
    }
    let seen = bench.volume_of(&one, "").await.unwrap();
    assert_eq!(fs::read_to_string(seen.join("file")).unwrap(), "a");
    for path in ["file", "new"] {
        let error = fs::write(seen.join(path), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    bench.gone().await;

    let seen = bench.volume_of(&two, "data").await.unwrap();
    assert_eq!(fs::read_dir(&seen).unwrap().count(), 0, "what an upper layer removed is not there");
    assert_eq!(fs::write(seen.join("x"), "x").unwrap_err().raw_os_error(), Some(30));
    bench.gone().await;
    bench.gone().await;
}

#[tokio::test]
async fn a_folder_of_an_image_is_found_by_its_links_and_never_outside_of_it() {
    let bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[links()]);
    bench.pull("r.io/app:1").await.unwrap();
    for path in ["up", "host", "etc", "data/../up", "short/../../etc"] {
        bench.images().check_volume(&id, path.as_ref()).await.unwrap();
        let seen = bench.volume_of(&id, path).await.unwrap();
        let text = fs::read_to_string(seen.join("passwd")).unwrap();
        assert_eq!(text, "of the image", "{path}");
        bench.gone().await;
    }
    let seen = bench.volume_of(&id, "short").await.unwrap();
    assert_eq!(fs::read_to_string(seen.join("file")).unwrap(), "deep");
    bench.gone().await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_refused_beforehand_and_leaves_nothing() {
    let bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[links()]);
    bench.pull("r.io/app:1").await.unwrap();
    let long = "n".repeat(300);
    for (path, why) in [
        ("none", "no such folder"),
        ("nowhere", "no such folder"),
        ("etc/passwd", "a file"),
        ("etc/passwd/x", "a file"),
        ("round", "circle"),
        (&long, "so long"),
    ] {
        for error in [
            bench.images().check_volume(&id, path.as_ref()).await.unwrap_err(),
            bench.volume_of(&id, path).await.unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::InvalidArgument, "{path}");
            assert!(names::chain(&error).contains(why), "{path}: {}", names::chain(&error));
        }
        assert!(bench.images().containers().is_empty() && bench.nothing_in_tmp(), "{path}");
        bench.gone().await;
    }
    let unknown = digest(b"");
    let error = bench.images().check_volume(&unknown, "".as_ref()).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    let volumes =
        vec![Volume { image: unknown, sub_path: "".into(), target: bench.target("seen") }];
    let (name, target) = (container("m"), bench.target("root"));
    let mounted =
        bench.images().mount_rootfs(&name, rootfs(&id, &target, Access::Writable, volumes)).await;
    assert_eq!(mounted.unwrap_err().class(), Class::NotFound);
    assert!(bench.images().containers().is_empty());
}

#[tokio::test]
async fn an_image_is_in_use_while_a_container_sees_it_also_after_a_restart() {
    let mut bench = Bench::new();
    let (root, _) = bench.fake.image("r.io/root:1", &[one("root")]);
    let (seen, _) = bench.fake.image("r.io/seen:1", &[links()]);
    for name in ["r.io/root:1", "r.io/seen:1"] {
        bench.pull(name).await.unwrap();
    }
    let target = bench.target("root");
    let volume = |path: &str, target| Volume { image: seen.clone(), sub_path: path.into(), target };
    let volumes = vec![volume("", bench.target("seen")), volume("etc", bench.target("etc"))];
    let (name, access) = (container("m"), Access::Writable);
    bench.images().mount_rootfs(&name, rootfs(&root, &target, access, volumes)).await.unwrap();
    for restart in [false, true] {
        bench.images().remove("r.io/seen:1").await.unwrap();
        if restart {
            bench.open();
        }
        let text = fs::read_to_string(bench.at("seen/etc/passwd")).unwrap();
        assert_eq!(text, fs::read_to_string(bench.at("etc/passwd")).unwrap());
        assert_eq!(bench.names("layers").len(), 2);
    }
    // As a sweep does it, which does not know where the root filesystem was.
    bench.images().unmount(&name, &bench.at("nowhere")).await.unwrap();
    assert_eq!(bench.names("layers").len(), 1);
    for name in ["seen", "etc"] {
        assert!(!sys::mount::is_mounted(&bench.at(name)).unwrap(), "{name}");
    }
}

#[tokio::test]
async fn the_record_of_a_container_of_an_older_program_is_read() {
    let mut bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[one("a")]);
    bench.pull("r.io/app:1").await.unwrap();
    bench.mount(&id, "m").await;
    let held = bench.images().0.store.index().containers[&container("m")].layers.clone();
    let old = json!({ "image": id, "layers": held, "target": bench.at("m") });
    let place = bench.at("images/containers").join(container("m").as_str());
    let sealed = crate::store::record::seal(&old).unwrap();
    fs::write(place.join("record.json"), sealed).unwrap();
    bench.images().remove("r.io/app:1").await.unwrap();
    bench.open();
    assert_eq!(bench.images().containers(), [container("m")]);
    assert_eq!(bench.names("layers").len(), 1, "it still counts on its layer");
}
