//! What most tests begin with: a registry `r.test` that `hosts.toml` leads to servers of the test.

use std::{fs, path::Path, time::Duration};

use names::{Digest, ImageRef};
use registry::{Auth, Config, Error, Fetched, Proxies, Registry};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use crate::evil::{Evil, Reply};

pub const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
pub const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A client, and the folder of its `hosts.toml`.
pub struct Scene {
    pub registry: Registry,
    pub hosts: tempfile::TempDir,
}

/// Long enough for a busy machine, quick to try again.
pub fn patient() -> Config {
    Config {
        connect_timeout: Duration::from_secs(20),
        header_timeout: Duration::from_secs(20),
        progress_timeout: Duration::from_secs(20),
        progress_bytes: 64,
        tries: 3,
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_secs(2),
        resumes: 2,
        proxies: Proxies::none(),
        ..Config::default()
    }
}

/// For what never comes. What does come needs more time than this on a busy machine.
pub fn hasty() -> Config {
    let soon = Duration::from_millis(400);
    Config { connect_timeout: soon, header_timeout: soon, progress_timeout: soon, ..patient() }
}

impl Scene {
    pub fn new(config: Config, hosts_toml: &str) -> Scene {
        let hosts = tempfile::tempdir().unwrap();
        put_hosts(hosts.path(), "r.test", hosts_toml);
        let config = Config { hosts_dirs: vec![hosts.path().to_owned()], ..config };
        Scene { registry: Registry::new(config).unwrap(), hosts }
    }

    /// `r.test` is this server.
    pub fn at(config: Config, server: &Evil) -> Scene {
        Scene::new(config, &format!("server = \"{}\"", server.url()))
    }

    /// `r.test` is the last of these, and the others are its mirrors.
    pub fn mirrored(config: Config, servers: &[&Evil]) -> Scene {
        let (own, mirrors) = servers.split_last().unwrap();
        let mirrors: String = mirrors.iter().map(|m| format!("[host.\"{}\"]\n", m.url())).collect();
        Scene::new(config, &format!("server = \"{}\"\n{mirrors}", own.url()))
    }

    pub async fn manifest(&self, auth: Option<&Auth>) -> Result<Fetched, Error> {
        self.registry.manifest(&image(), "v1", auth).await
    }

    /// The whole blob, or how it failed.
    pub async fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>, Error> {
        let (bytes, result) = self.blob_until(digest, size).await;
        result.map(|()| bytes)
    }

    /// What came of the blob, and how it ended.
    pub async fn blob_until(
        &self,
        digest: &Digest,
        size: Option<u64>,
    ) -> (Vec<u8>, Result<(), Error>) {
        let mut bytes = Vec::new();
        let mut blob = match self.registry.blob(&image(), digest, size, None).await {
            Ok(blob) => blob,
            Err(error) => return (bytes, Err(error)),
        };
        match blob.read_to_end(&mut bytes).await {
            Ok(_) => (bytes, Ok(())),
            Err(error) => {
                let inner = error.into_inner().expect("an error of ours");
                (bytes, Err(*inner.downcast().expect("an error of ours")))
            }
        }
    }
}

pub fn put_hosts(dir: &Path, registry: &str, text: &str) {
    let folder = dir.join(registry);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("hosts.toml"), text).unwrap();
}

pub fn image() -> ImageRef {
    "r.test/lib/app:v1".parse().unwrap()
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// The manifest, as a good registry answers with it.
pub fn good() -> Reply {
    Reply::ok(MANIFEST)
        .header("content-type", TYPE)
        .header("docker-content-digest", digest(MANIFEST.as_bytes()).as_str())
}

/// The error and all its sources, in both of their forms.
pub fn whole_text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error} {error:?}");
    let mut current = error.source();
    while let Some(source) = current {
        text += &format!(" {source} {source:?}");
        current = source.source();
    }
    text
}
