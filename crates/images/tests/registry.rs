//! A pull from a real registry, of an image that another program pushed.

// clippy.toml lets tests unwrap, and does not see that all of this file is one.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use images::{Access, Config, ImageConfig, Images, Progress};
use names::{ContainerId, ImageRef};
use registry::Registry;

/// Debian's docker-registry on a port of loopback, for as long as this lives.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// `None`, with the reason printed, where the programs are not here.
    async fn start(dir: &Path) -> Option<Server> {
        for program in ["docker-registry", "skopeo"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
                eprintln!("skipped: {program} is not here");
                return None;
            }
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.join("registry.yml");
        let blobs = dir.join("blobs");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n",
            blobs.display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry never listens");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(server)
    }

    fn push(&self, archive: &Path, name: &str) {
        let copy = Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://127.0.0.1:{}/{name}", self.port))
            .output()
            .unwrap();
        assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    }

    fn client(&self, dir: &Path) -> Registry {
        let host = dir.join(format!("certs.d/127.0.0.1:{}", self.port));
        fs::create_dir_all(&host).unwrap();
        let text = format!("server = \"http://127.0.0.1:{}\"\n", self.port);
        fs::write(host.join("hosts.toml"), text).unwrap();
        let hosts_dirs = vec![dir.join("certs.d")];
        Registry::new(registry::Config { hosts_dirs, ..registry::Config::default() }).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files() -> Vec<(PathBuf, Vec<u8>, u32)> {
    // Bytes that do not compress, enough for many chunks.
    let mut seed = 1u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    });
    vec![
        ("bin/tool".into(), noise.take(3 << 20).collect(), 0o4755),
        ("etc/name".into(), b"podbay".to_vec(), 0o644),
    ]
}

#[tokio::test]
async fn an_image_that_skopeo_pushed_is_pulled_and_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(dir.path()).await else { return };
    let client = server.client(dir.path());
    let images = Images::open(Config::new(dir.path().join("images")), client).unwrap();
    let made: ImageRef = "podbay.local/made:1".parse().unwrap();
    let config = ImageConfig { cmd: vec!["/bin/tool".into()], ..ImageConfig::default() };
    images.make(&made, files(), config).await.unwrap();
    let archive = dir.path().join("made.tar");
    images.save("podbay.local/made:1", fs::File::create(&archive).unwrap()).await.unwrap();
    server.push(&archive, "team/made:1");
    images.remove("podbay.local/made:1").await.unwrap();

    let reference: ImageRef = format!("127.0.0.1:{}/team/made:1", server.port).parse().unwrap();
    let (told, seen) = tokio::sync::watch::channel(Progress::default());
    let pull = images.pull(&reference, None, Some(told));
    let id = tokio::time::timeout(Duration::from_secs(60), pull).await.unwrap().unwrap();
    let (come, total) = seen.borrow().bytes();
    assert!(come == total && total > 3 << 20, "{come} of {total}");
    let image = images.find(&reference.to_string()).unwrap();
    assert_eq!((&image.id, image.config.cmd.len()), (&id, 1));
    let by_digest = image.digests[0].to_string();
    assert_eq!(images.find(&by_digest).unwrap().id, id);

    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    let container = ContainerId::from_bytes([1; 32]);
    images.mount(&id, &container, &target, Access::Writable).await.unwrap();
    let same = fs::read(target.join("bin/tool")).unwrap() == files()[0].1;
    images.unmount(&container, &target).await.unwrap();
    assert!(same, "the file is what was pushed");

    let missing: ImageRef = format!("127.0.0.1:{}/team/none:1", server.port).parse().unwrap();
    let error = images.pull(&missing, None, None).await.unwrap_err();
    assert_eq!(error.class(), names::Class::NotFound, "{error:?}");
}
