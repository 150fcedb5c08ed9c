//! Images for tests: one that a daemon makes of files that it is sent, and ones on disk, in the OCI
//! layout, that can be put into a registry.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use cri_proto::admin::{File, MakeImageRequest};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A busybox that needs no other file.
pub const BUSYBOX: &str = "/bin/busybox";

/// What tests run of it.
const APPLETS: [&str; 45] = [
    "sh", "sleep", "echo", "cat", "ls", "id", "nc", "httpd", "wget", "true", "false", "env", "ps",
    "kill", "touch", "mkdir", "rm", "seq", "yes", "head", "tail", "dd", "hostname", "ip", "mount",
    "umount", "df", "stat", "sysctl", "usleep", "test", "grep", "wc", "readlink", "pwd", "awk",
    "sort", "uname", "date", "tr", "cut", "printf", "ping", "chmod", "mknod",
];

/// An image of busybox, with its applets as hard links.
pub(crate) fn request(reference: &str) -> MakeImageRequest {
    let busybox = busybox();
    let program =
        File { path: "/bin/busybox".into(), mode: 0o755, content: busybox, link: String::new() };
    let applets = APPLETS.iter().map(|applet| File {
        path: format!("/bin/{applet}"),
        link: "/bin/busybox".into(),
        ..File::default()
    });
    MakeImageRequest {
        reference: reference.to_owned(),
        files: [program].into_iter().chain(applets).chain(files()).collect(),
        cmd: vec!["sh".into()],
        env: vec!["PATH=/bin".into(), "OF_IMAGE=yes".into()],
        ..MakeImageRequest::default()
    }
}

fn files() -> Vec<File> {
    let file = |path: &str, content: &str| File {
        path: path.into(),
        mode: 0o644,
        content: content.into(),
        link: String::new(),
    };
    let folder = |path: &str, mode| File { path: path.into(), mode, ..File::default() };
    vec![
        folder("/tmp/", 0o1777),
        folder("/www/", 0o755),
        file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:50:web:/www:/bin/sh\n"),
        file("/etc/group", "root:x:0:\nweb:x:50:\nextra:x:60:web\n"),
    ]
}

/// The bytes of busybox.
///
/// # Panics
/// It is not on this host; see [`crate::Daemon::start`], which looks first.
pub fn busybox() -> Vec<u8> {
    fs::read(BUSYBOX).expect("the tests have looked for it")
}

/// What is worth a hard link, in bytes.
const LARGE: usize = 1 << 16;

/// What makes an entry of a layer a symbolic link, to what is its content.
pub const SYMLINK: u32 = 0o120_000;

/// A layer: files by their paths without the first slash, and their modes.
pub type Layer = Vec<(String, u32, Vec<u8>)>;

/// A layer with busybox and its shell.
pub fn busybox_layer() -> Layer {
    let names = ["busybox", "sh", "sleep", "cat"];
    names.iter().map(|name| (format!("bin/{name}"), 0o755, busybox())).collect()
}

/// An image on disk, in the OCI layout.
#[derive(Clone, Debug)]
pub struct Layout {
    pub dir: PathBuf,
    /// Digests, with `sha256:`.
    pub manifest: String,
    pub config: String,
    pub layers: Vec<String>,
}

impl Layout {
    /// Writes an image of these layers into a new folder.
    ///
    /// # Panics
    /// The disk does not let it.
    pub fn write(dir: &Path, layers: &[Layer]) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a test can make its folders");
        let tars: Vec<Vec<u8>> = layers.iter().map(tar).collect();
        let blobs: Vec<Value> = tars
            .iter()
            .map(|tar| put(dir, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip(tar)))
            .collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": tars.iter().map(|tar| digest(tar)).collect::<Vec<_>>() },
        });
        let config = put(dir, "application/vnd.oci.image.config.v1+json", &bytes(&config));
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": blobs,
        });
        let manifest = put(dir, kind, &bytes(&manifest));
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        write(&dir.join("index.json"), &bytes(&index));
        write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
        Self {
            dir: dir.to_owned(),
            manifest: text(&manifest["digest"]),
            config: text(&config["digest"]),
            layers: blobs.iter().map(|blob| text(&blob["digest"])).collect(),
        }
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a test can write its files");
}

/// Writes a blob, and gives its descriptor.
fn put(dir: &Path, kind: &str, blob: &[u8]) -> Value {
    let digest = digest(blob);
    write(&dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), blob);
    json!({ "mediaType": kind, "digest": digest, "size": blob.len() })
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// What is large and there already becomes a hard link.
fn tar(layer: &Layer) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (n, (path, mode, content)) in layer.iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        let earlier = layer[..n].iter().find(|it| content.len() > LARGE && it.2 == *content);
        let target = std::str::from_utf8(content).unwrap_or_default();
        let appended = match earlier {
            _ if mode & SYMLINK == SYMLINK => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, target)
            }
            Some((first, ..)) => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                tar.append_link(&mut header, path, first)
            }
            None => {
                header.set_size(content.len().try_into().unwrap_or(u64::MAX));
                tar.append_data(&mut header, path, content.as_slice())
            }
        };
        appended.expect("memory takes it");
    }
    tar.into_inner().expect("memory takes it")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("memory takes it");
    gzip.finish().expect("memory takes it")
}
