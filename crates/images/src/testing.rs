//! Archives made by hand, right and wrong, and a registry in memory, for the tests.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use names::{Class, Digest, ImageRef};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tokio::sync::Notify;

use crate::{
    manifest,
    source::{Auth, Failure, Fetched, Source, Stream},
};

/// An archive that is being written, member by member, without any check.
#[derive(Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// A header with these fields, its name cut to what fits.
pub fn header(kind: EntryType, path: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    let length = path.len().min(100);
    header.as_old_mut().name[..length].copy_from_slice(&path[..length]);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// A member with any header, the checksum being set.
    pub fn raw(mut self, mut header: Header, body: &[u8]) -> Tar {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    fn long(self, path: &str) -> Tar {
        match path.len() {
            0..=100 => self,
            _ => self.member(EntryType::GNULongName, "././@LongLink", path.as_bytes()),
        }
    }

    fn member(self, kind: EntryType, path: &str, body: &[u8]) -> Tar {
        self.raw(header(kind, path.as_bytes(), body.len() as u64), body)
    }

    pub fn file(self, path: &str, body: &str) -> Tar {
        self.long(path).member(EntryType::Regular, path, body.as_bytes())
    }

    pub fn dir(self, path: &str) -> Tar {
        self.long(path).member(EntryType::Directory, path, b"")
    }

    pub fn with(self, kind: EntryType, path: &str, change: impl FnOnce(&mut Header)) -> Tar {
        let mut header = header(kind, path.as_bytes(), 0);
        change(&mut header);
        self.raw(header, b"")
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Tar {
        self.with(kind, path, |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Symlink, path, target)
    }

    pub fn hard(self, path: &str, target: &str) -> Tar {
        self.link(EntryType::Link, path, target)
    }

    pub fn device(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Tar {
        self.with(kind, path, |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.member(EntryType::XHeader, "pax", &pax(records))
    }

    pub fn global(self, records: &[(&str, &[u8])]) -> Tar {
        self.member(EntryType::XGlobalHeader, "pax", &pax(records))
    }

    pub fn long_name(self, path: &str) -> Tar {
        self.member(EntryType::GNULongName, "././@LongLink", path.as_bytes())
    }

    /// With the two blocks of zeros that end an archive.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// Without them.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..).find(|n| rest + n.to_string().len() == *n).unwrap();
        write!(body, "{length} {key}=").unwrap();
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// A registry in memory, which counts what it gives and can be told to dawdle.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Shelf>>);

#[derive(Default)]
struct Shelf {
    manifests: HashMap<(String, String), Fetched>,
    blobs: HashMap<Digest, Bytes>,
    given: HashMap<Digest, usize>,
    /// Blobs that give half of themselves and then wait for this.
    gates: HashMap<Digest, Arc<Notify>>,
}

impl Fake {
    pub fn new() -> Fake {
        Fake::default()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap()
    }

    pub fn blob(&self, bytes: Vec<u8>) -> Digest {
        let digest = digest(&bytes);
        self.shelf().blobs.insert(digest.clone(), bytes.into());
        digest
    }

    /// What a digest leads to, from now on.
    pub fn lie(&self, digest: &Digest, bytes: &[u8]) {
        self.shelf().blobs.insert(digest.clone(), bytes.to_vec().into());
    }

    pub fn manifest(&self, reference: &str, media_type: &str, manifest: &Value) -> Digest {
        let reference: ImageRef = reference.parse().unwrap();
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest(&bytes);
        let media_type = media_type.to_owned();
        let fetched = Fetched { digest: digest.clone(), media_type, bytes };
        let repository = reference.repository();
        let mut shelf = self.shelf();
        let by_digest = (repository.clone(), digest.to_string());
        shelf.manifests.insert(by_digest, fetched.clone());
        shelf.manifests.insert((repository, reference.wanted().to_owned()), fetched);
        digest
    }

    /// An image of these archives, each compressed; gives back its id and its manifest's digest.
    pub fn image(&self, reference: &str, archives: &[Vec<u8>]) -> (Digest, Digest) {
        self.image_with(reference, archives, json!({ "Env": ["A=b"] }))
    }

    pub fn image_with(
        &self,
        reference: &str,
        archives: &[Vec<u8>],
        run: Value,
    ) -> (Digest, Digest) {
        let diffs: Vec<Digest> = archives.iter().map(|archive| digest(archive)).collect();
        let config = json!({
            "architecture": manifest::host().architecture, "os": "linux", "config": run,
            "rootfs": { "type": "layers", "diff_ids": diffs },
        });
        let layers: Vec<Value> = archives
            .iter()
            .map(|archive| self.descriptor(gzip(archive), &format!("{}+gzip", manifest::OCI_LAYER)))
            .collect();
        let config = self.descriptor(config.to_string().into_bytes(), manifest::OCI_CONFIG);
        let id = config["digest"].as_str().unwrap().parse().unwrap();
        let body = json!({
            "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST,
            "config": config, "layers": layers,
        });
        (id, self.manifest(reference, manifest::OCI_MANIFEST, &body))
    }

    pub fn descriptor(&self, bytes: Vec<u8>, media_type: &str) -> Value {
        let size = bytes.len();
        json!({ "mediaType": media_type, "digest": self.blob(bytes), "size": size })
    }

    /// How often a blob was asked for.
    pub fn given(&self, blob: &Digest) -> usize {
        self.shelf().given.get(blob).copied().unwrap_or(0)
    }

    pub fn given_in_all(&self) -> usize {
        self.shelf().given.values().sum()
    }

    /// Makes a blob stop in its middle until the gate is notified.
    pub fn gate(&self, blob: &Digest) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        self.shelf().gates.insert(blob.clone(), Arc::clone(&gate));
        gate
    }
}

impl Source for Fake {
    fn manifest<'a>(
        &'a self,
        image: &'a ImageRef,
        wanted: &'a str,
        _auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Fetched, Failure>> {
        let key = (image.repository(), wanted.to_owned());
        let found = self.shelf().manifests.get(&key).cloned();
        let found = found.ok_or_else(|| Failure::new(Class::NotFound, "no such manifest"));
        std::future::ready(found).boxed()
    }

    fn blob<'a>(
        &'a self,
        _image: &'a ImageRef,
        digest: &'a Digest,
        _size: u64,
        auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Stream, Failure>> {
        let mut shelf = self.shelf();
        *shelf.given.entry(digest.clone()).or_default() += 1;
        let gate = shelf.gates.get(digest).cloned();
        let found = shelf.blobs.get(digest).cloned();
        let gated = gate.is_some();
        let denied = auth.is_some_and(|auth| auth.password == "wrong");
        async move {
            let bytes = found.ok_or_else(|| Failure::new(Class::NotFound, "no such blob"))?;
            let half = bytes.len() / 2;
            let first = stream::iter([Ok(bytes.slice(..half))]);
            let rest = stream::once(async move {
                if let Some(gate) = gate {
                    gate.notified().await;
                    gate.notify_one();
                }
                if denied && gated {
                    let failure = Failure::new(Class::PermissionDenied, "denied half-way");
                    return Err(std::io::Error::other(failure));
                }
                Ok(bytes.slice(half..))
            });
            Ok(first.chain(rest).boxed())
        }
        .boxed()
    }
}

/// Waits for what must become so, looking again and again.
pub async fn eventually(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Fake {
    /// The size of a manifest.
    pub fn size_of(&self, reference: &str) -> usize {
        let reference: ImageRef = reference.parse().unwrap();
        let key = (reference.repository(), reference.wanted().to_owned());
        self.shelf().manifests[&key].bytes.len()
    }
}
