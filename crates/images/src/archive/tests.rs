//! Archives of images, ours and others', there and back.

use std::{fs, io::Cursor, os::unix::fs::MetadataExt, path::PathBuf, process::Command};

use serde_json::json;

use crate::{
    Access, Config, Image, ImageConfig, Images,
    testing::{Fake, Tar, digest, gzip},
    unpack::{Kind, Tape},
};

struct Bench {
    dir: tempfile::TempDir,
    fake: Fake,
    images: Images,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let images = Images::open(Config::new(dir.path().join("images")), fake.clone()).unwrap();
        Bench { dir, fake, images }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn is_tidy(&self) -> bool {
        fs::read_dir(self.at("images/tmp")).unwrap().count() == 0
    }

    async fn mounted(&self, image: &Image) -> Mounted {
        let target = self.at("target");
        fs::create_dir_all(&target).unwrap();
        let container = names::ContainerId::from_bytes([7; 32]);
        self.images.mount(&image.id, &container, &target, Access::ReadOnly).await.unwrap();
        Mounted(target)
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = sys::mount::unmount(&self.0);
    }
}

#[tokio::test]
async fn an_image_is_made_of_a_few_files() {
    let bench = Bench::new();
    let reference = "podbay.local/demo:1".parse().unwrap();
    let files = vec![
        (PathBuf::from("/bin/hello"), b"#!".to_vec(), 0o755),
        (PathBuf::from("/etc/deep/er/file"), b"x".to_vec(), 0o600),
    ];
    let config = ImageConfig { cmd: vec!["/bin/hello".into()], ..ImageConfig::default() };
    let id = bench.images.make(&reference, files, config).await.unwrap();
    let image = bench.images.find("podbay.local/demo:1").unwrap();
    assert_eq!((&image.id, image.config.cmd[0].as_str()), (&id, "/bin/hello"));
    assert_eq!(image.config.os, "linux");
    assert!(bench.is_tidy());
    let mounted = bench.mounted(&image).await;
    assert_eq!(mounted.0.join("bin/hello").metadata().unwrap().mode() & 0o7777, 0o755);
    assert_eq!(mounted.0.join("etc/deep").metadata().unwrap().mode() & 0o7777, 0o755);
    for bad in ["../x", "a/../../x"] {
        let files = vec![(PathBuf::from(bad), Vec::new(), 0o644)];
        assert!(bench.images.make(&reference, files, ImageConfig::default()).await.is_err());
    }
}

#[tokio::test]
async fn an_image_is_made_of_a_directory() {
    let bench = Bench::new();
    let tree = bench.at("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub").join("n".repeat(150)), "long").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
    let reference = "podbay.local/tree:1".parse().unwrap();
    bench.images.make_from_dir(&reference, &tree, ImageConfig::default()).await.unwrap();
    let mounted = bench.mounted(&bench.images.find("podbay.local/tree:1").unwrap()).await;
    let long = mounted.0.join("sub").join("n".repeat(150));
    assert_eq!(fs::read_to_string(long).unwrap(), "long");
    assert_eq!(mounted.0.join("link").read_link().unwrap(), PathBuf::from("/etc/passwd"));
}

/// A layer with a bit of everything.
fn rich() -> Vec<u8> {
    let mut capability = [0u8; 20];
    capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x0a, 0, 0]);
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    Tar::new()
        .with(tar::EntryType::Directory, "./", |h| h.set_mode(0o711))
        .file("plain", "contents")
        .hard("second", "plain")
        .symlink("link", "nowhere/at/all")
        .device(tar::EntryType::Char, "null", 1, 3)
        .with(tar::EntryType::Fifo, "pipe", |_| {})
        .file(".wh.gone", "")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", "")
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("mtime", b"-5.25")])
        .file("able", "x")
        .file(&long, "long")
        .file("implied/file", "x")
        .end()
}

/// What is in an archive, in words.
fn told(archive: &[u8]) -> Vec<String> {
    let mut tape = Tape::new(Cursor::new(archive));
    let mut told = Vec::new();
    while let Some(member) = tape.member().unwrap() {
        let path = String::from_utf8(member.path).unwrap();
        let kind = match member.kind {
            Kind::HardLink(_) => "hard link".to_owned(),
            other => format!("{other:?}"),
        };
        let xattrs = member.xattrs.len();
        let (mode, mtime) = (member.mode, member.mtime);
        told.push(format!("{} {kind} {mode:o} {mtime:?} {xattrs}", path.trim_end_matches('/')));
    }
    told.sort();
    told
}

#[tokio::test]
async fn a_saved_image_loads_as_what_it_was() {
    let bench = Bench::new();
    let (id, _) = bench.fake.image("r.io/app:1", &[Tar::new().file("gone", "x").end(), rich()]);
    bench.images.pull(&"r.io/app:1".parse().unwrap(), None, None).await.unwrap();
    let archive = bench.at("saved.tar");
    let out = fs::File::create(&archive).unwrap();
    bench.images.save(id.as_str(), out).await.unwrap();
    assert!(bench.is_tidy());
    let other = Bench::new();
    let loaded = other.images.load(&archive).await.unwrap();
    assert_eq!(loaded[0].tags, ["r.io/app:1".parse().unwrap()]);
    assert_eq!(loaded[0].config, bench.images.find(id.as_str()).unwrap().config);
    let members = |images: &Bench, id: &str| {
        let image = images.images.find(id).unwrap();
        let top = image.layers.last().unwrap();
        let root = images.at("images/layers").join(top.hex()).join("fs");
        let mut bytes = Vec::new();
        let manner = super::tree::Manner { whiteouts: true, ..Default::default() };
        super::tree::write(sys::beneath::open_root(&root).unwrap(), &mut bytes, &manner).unwrap();
        told(&bytes)
    };
    let (before, after) = (members(&bench, id.as_str()), members(&other, loaded[0].id.as_str()));
    assert!(before.len() > 12, "{before:?}");
    let implied = |line: &&String| !line.starts_with("implied Dir") && !line.starts_with("ddd");
    assert_eq!(
        before.iter().filter(implied).collect::<Vec<_>>(),
        after.iter().filter(implied).collect::<Vec<_>>()
    );
    // Saved again it is the same to the last byte: there is one order and no clock in it.
    let again = bench.at("again.tar");
    other.images.save("r.io/app:1", fs::File::create(&again).unwrap()).await.unwrap();
    let twice = bench.at("twice.tar");
    other.images.save("r.io/app:1", fs::File::create(&twice).unwrap()).await.unwrap();
    assert_eq!(fs::read(again).unwrap(), fs::read(twice).unwrap());
}

#[tokio::test]
async fn a_docker_archive_is_loaded_with_its_tags() {
    let bench = Bench::new();
    let (one, two) = (Tar::new().file("a", "1").end(), Tar::new().file("b", "2").end());
    let config = json!({ "os": "linux", "rootfs": { "diff_ids": [digest(&one), digest(&two), digest(&one)] } });
    let config = config.to_string();
    let manifest = json!([{
        "Config": "config.json", "RepoTags": ["app:1", "app:2"],
        "Layers": ["x/layer.tar", "y/layer.tar", "z/layer.tar"],
    }]);
    let archive = Tar::new()
        .dir("x/")
        .file("x/layer.tar", std::str::from_utf8(&one).unwrap())
        .file("y/layer.tar", std::str::from_utf8(&two).unwrap())
        .symlink("z/layer.tar", "../x/layer.tar")
        .file("config.json", &config)
        .file("manifest.json", &manifest.to_string())
        .end();
    for bytes in [archive.clone(), gzip(&archive)] {
        let loaded = bench.images.load_from(Cursor::new(bytes)).await.unwrap();
        assert_eq!(loaded[0].id, digest(config.as_bytes()));
        assert_eq!(loaded[0].tags.len(), 2);
    }
    assert_eq!(bench.images.list().len(), 1);
    assert!(bench.is_tidy());
}

#[tokio::test]
async fn an_archive_that_lies_or_lacks_is_refused() {
    let layer = Tar::new().file("a", "1").end();
    let text = std::str::from_utf8(&layer).unwrap();
    let config = json!({ "rootfs": { "diff_ids": [digest(b"other")] } }).to_string();
    let docker = |layers: serde_json::Value| {
        json!([{ "Config": "config.json", "RepoTags": ["app:1"], "Layers": layers }]).to_string()
    };
    let index = |name: &str| {
        json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": crate::manifest::OCI_MANIFEST, "digest": digest(b"x"), "size": 1,
            "annotations": { "org.opencontainers.image.ref.name": name },
        }]})
        .to_string()
    };
    let whole = Tar::new().file("l.tar", text).file("config.json", &config);
    for (what, archive) in [
        ("nothing", Tar::new().end()),
        ("garbage", b"garbage".repeat(100)),
        ("a wrong diff id", whole.clone().file("manifest.json", &docker(json!(["l.tar"]))).end()),
        ("a missing layer", whole.clone().file("manifest.json", &docker(json!(["none"]))).end()),
        ("a path out", whole.clone().file("manifest.json", &docker(json!(["../l.tar"]))).end()),
        ("too few layers", whole.clone().file("manifest.json", &docker(json!([]))).end()),
        ("a missing blob", Tar::new().file("index.json", &index("app:1")).end()),
        (
            "a lying blob",
            Tar::new()
                .file(&format!("blobs/sha256/{}", digest(b"x").hex()), "y")
                .file("index.json", &index("app:1"))
                .end(),
        ),
        ("an index that is none", Tar::new().file("index.json", "{}").end()),
    ] {
        let bench = Bench::new();
        let loaded = bench.images.load_from(Cursor::new(archive)).await;
        assert!(loaded.is_err(), "{what}");
        assert!(bench.images.list().is_empty(), "{what}");
        let layers = fs::read_dir(bench.at("images/layers")).unwrap().count();
        assert!(layers == 0 && bench.is_tidy(), "{what}");
    }
}

#[tokio::test]
async fn what_is_saved_is_read_by_skopeo() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skipped: skopeo is not here");
        return;
    }
    let bench = Bench::new();
    bench.fake.image("r.io/app:1", &[Tar::new().file("a", "1").end(), rich()]);
    bench.images.pull(&"r.io/app:1".parse().unwrap(), None, None).await.unwrap();
    let archive = bench.at("saved.tar");
    bench.images.save("r.io/app:1", fs::File::create(&archive).unwrap()).await.unwrap();
    let docker = bench.at("docker.tar");
    let copy = Command::new("skopeo")
        .args(["copy", "--insecure-policy"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("docker-archive:{}:other:3", docker.display()))
        .output()
        .unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    let loaded = bench.images.load(&docker).await.unwrap();
    assert_eq!(loaded[0].tags, ["other:3".parse().unwrap()]);
}
