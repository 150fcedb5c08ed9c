//! The client against the registry that most people run (distribution, from Debian's
//! `docker-registry`). Skipped, aloud, where it is not installed.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use names::{Class, ImageRef};
use registry::{Auth, Error, Registry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::scene::{MANIFEST, TYPE, digest, patient};

const PROGRAM: &str = "/usr/bin/docker-registry";
/// Of user `node`, password `open-sesame-4711`.
const HTPASSWD: &str = "node:$2y$04$abcdefghijklmnopqrstuuo6bT7LAS3oDMO8ApB/N/H/clbsiEgqi\n";
const BASIC: &str = "Basic bm9kZTpvcGVuLXNlc2FtZS00NzEx";

struct Real {
    port: u16,
    child: Child,
    basic: Option<&'static str>,
    _dir: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the registry ends");
    }
}

impl Real {
    /// None if there is no such program here.
    async fn start(basic: Option<&'static str>) -> Option<Real> {
        Real::with(basic, false).await
    }

    async fn with(basic: Option<&'static str>, tls: bool) -> Option<Real> {
        if !std::path::Path::new(PROGRAM).exists() {
            eprintln!("skipped: {PROGRAM} is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            let mut child = spawn(dir.path(), free_port(), basic.is_some(), tls);
            let port = child.1;
            if answers(&mut child.0, port).await {
                return Some(Real { port, child: child.0, basic, _dir: dir });
            }
        }
        panic!("{PROGRAM} does not start");
    }

    fn image(&self) -> ImageRef {
        format!("127.0.0.1:{}/lib/app:v1", self.port).parse().unwrap()
    }

    /// One request; the status of its answer and the value of its `Location`.
    async fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let host = format!("127.0.0.1:{}", self.port);
        let path = path.strip_prefix(&format!("http://{host}")).unwrap_or(path);
        let auth = self.basic.map(|basic| format!("authorization: {basic}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{}content-type: {kind}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            auth.unwrap_or_default(),
            body.len()
        );
        let mut stream = TcpStream::connect(&host).await.unwrap();
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        (status, location.unwrap_or_default().to_owned())
    }

    async fn push(&self, blob: &[u8]) {
        self.push_blob(blob).await;
        let config = b"{}";
        self.push_blob(config).await;
        let manifest = manifest(blob, config);
        let path = "/v2/lib/app/manifests/v1";
        assert_eq!(self.send("PUT", path, TYPE, manifest.as_bytes()).await.0, 201);
    }

    async fn push_blob(&self, blob: &[u8]) {
        let kind = "application/octet-stream";
        let (status, location) = self.send("POST", "/v2/lib/app/blobs/uploads/", kind, b"").await;
        assert_eq!(status, 202);
        let path = format!("{location}&digest={}", digest(blob));
        assert_eq!(self.send("PUT", &path, kind, blob).await.0, 201);
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn spawn(dir: &std::path::Path, port: u16, guarded: bool, tls: bool) -> (Child, u16) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let show = dir.display();
    let certificate =
        format!("  tls:\n    certificate: {show}/cert.pem\n    key: {show}/key.pem\n");
    let auth = format!("auth:\n  htpasswd:\n    realm: r\n    path: {show}/htpasswd\n");
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {show}/data\n\
         http:\n  addr: 127.0.0.1:{port}\n{}{}",
        if tls { certificate.as_str() } else { "" },
        if guarded { auth.as_str() } else { "" },
    );
    fs::write(dir.join("config.yml"), config).unwrap();
    // It ends with the test's thread, however that ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", PROGRAM, "serve"])
        .arg(dir.join("config.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    (command.spawn().unwrap(), port)
}

/// Whether it listens in the end, rather than having ended.
async fn answers(child: &mut Child, port: u16) -> bool {
    let poll = async {
        while child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    };
    tokio::time::timeout(Duration::from_secs(30), poll).await.expect("the registry starts or ends")
}

fn manifest(blob: &[u8], config: &[u8]) -> String {
    let part = |kind: &str, bytes: &[u8]| {
        let kind = format!("application/vnd.oci.image.{kind}");
        let (digest, size) = (digest(bytes), bytes.len());
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let (config, layer) = (part("config.v1+json", config), part("layer.v1.tar", blob));
    MANIFEST
        .replace("\"config\":{}", &format!("\"config\":{config}"))
        .replace("\"layers\":[]", &format!("\"layers\":[{layer}]"))
}

fn blob() -> Vec<u8> {
    (0..500_000u32).flat_map(u32::to_le_bytes).collect()
}

async fn pull(real: &Real, auth: Option<&Auth>) -> Result<Vec<u8>, Error> {
    let client = Registry::new(patient()).unwrap();
    let image = real.image();
    let by_tag = client.manifest(&image, "v1", auth).await?;
    assert_eq!(by_tag.bytes, manifest(&blob(), b"{}"));
    let by_digest = client.manifest(&image, by_tag.digest.as_str(), auth).await?;
    assert_eq!(by_digest, by_tag);
    let size = Some(blob().len() as u64);
    let mut got = Vec::new();
    let mut reader = client.blob(&image, &digest(&blob()), size, auth).await?;
    reader.read_to_end(&mut got).await.unwrap();
    Ok(got)
}

#[tokio::test]
async fn an_open_registry_gives_what_was_pushed() {
    let Some(real) = Real::start(None).await else { return };
    real.push(&blob()).await;
    assert!(pull(&real, None).await.unwrap() == blob());
    let client = Registry::new(patient()).unwrap();
    let error = client.manifest(&real.image(), "v2", None).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
    let none = client.blob(&real.image(), &digest(b"none"), None, None).await.unwrap_err();
    assert_eq!(none.class(), Class::NotFound);
}

#[tokio::test]
async fn a_registry_of_this_host_that_wants_tls_is_found_without_being_configured() {
    let Some(real) = Real::with(None, true).await else { return };
    let client = Registry::new(patient()).unwrap();
    let error = client.manifest(&real.image(), "v1", None).await.unwrap_err();
    assert_eq!(error.class(), Class::NotFound, "{error}");
    assert!(error.to_string().contains("https://127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_guarded_registry_wants_the_right_password() {
    let Some(real) = Real::start(Some(BASIC)).await else { return };
    real.push(&blob()).await;
    let auth = |password: &str| Auth {
        username: "node".into(),
        password: password.into(),
        ..Auth::default()
    };
    assert!(pull(&real, Some(&auth("open-sesame-4711"))).await.unwrap() == blob());
    for refused in [Some(auth("guess-0815")), None] {
        let error = pull(&real, refused.as_ref()).await.unwrap_err();
        assert_eq!(error.class(), Class::PermissionDenied, "{error}");
        assert!(!error.to_string().contains("guess-0815"));
    }
}
