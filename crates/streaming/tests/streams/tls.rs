//! The server over TLS, with the same clients: each speaks to a carrier, which speaks TLS to the server
//! and believes in its certificate alone.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use streaming::{Ask, Config, Files};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    bulk,
    place::{Place, exec, forward, within},
    spdy_client::Client as Spdy,
    ws_client::Client as WebSocket,
};

/// A server with a certificate of its own making.
struct Secret {
    place: Place,
    files: Files,
    _dir: tempfile::TempDir,
}

impl Secret {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = certify(dir.path());
        let place = Place::with(Config { tls: Some(files.clone()), ..Config::default() }).await;
        Self { place, files, _dir: dir }
    }

    /// A URL for a client that knows nothing of TLS, and what carries it.
    async fn carried(&self, ask: Ask) -> (String, Carrier) {
        let url = self.place.server.url(ask).unwrap();
        let (address, path) = split(&url);
        let carrier = Carrier::to(address, trusting(&self.files.certificate)).await;
        (format!("http://{}{path}", carrier.address), carrier)
    }

    async fn connect(&self, url: &str) -> Result<TlsStream<TcpStream>, std::io::Error> {
        connect(split(url).0, &trusting(&self.files.certificate)).await
    }
}

fn certify(dir: &Path) -> Files {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let files = Files { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    files
}

fn trusting(certificate: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn connect(address: &str, by: &TlsConnector) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let socket = TcpStream::connect(address).await?;
    within(by.connect(ServerName::try_from("127.0.0.1").unwrap(), socket)).await
}

fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("https://").expect("it is served over TLS");
    rest.split_at(rest.find('/').unwrap())
}

/// Takes one plain connection to the server.
struct Carrier {
    address: std::net::SocketAddr,
    carrying: JoinHandle<()>,
}

impl Carrier {
    async fn to(address: &str, by: TlsConnector) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, here) = (address.to_owned(), listener.local_addr().unwrap());
        let carrying = tokio::spawn(async move {
            let (mut plain, _) = listener.accept().await.unwrap();
            let mut secret = connect(&address, &by).await.unwrap();
            // Either side may go without a word.
            let _ = copy_bidirectional(&mut plain, &mut secret).await;
        });
        Self { address: here, carrying }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

#[tokio::test]
async fn a_command_is_run_over_spdy_and_over_websocket() {
    let secret = Secret::new().await;
    let (url, _carrier) = secret.carried(exec(&["say", "out", "err", "7"], "oe")).await;
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    let stderr = client.typed("stderr").await;
    let stdout = client.typed("stdout").await;
    let error = client.typed("error").await;
    client.finish().await;
    assert_eq!((client.text(stdout), client.text(stderr)), ("out".to_owned(), "err".to_owned()));
    assert!(client.text(error).contains("NonZeroExitCode") && client.said_goodbye);

    let (url, _carrier) = secret.carried(exec(&["say", "out", "err", "0"], "oe")).await;
    let (heard, why) = WebSocket::open(&url, "v5.channel.k8s.io").await.finish().await;
    assert_eq!((&*heard[1], &*heard[2]), (&b"out"[..], &b"err"[..]));
    assert!(why.is_some());
    secret.place.is_empty().await;
    secret.place.stop().await;
}

#[tokio::test]
async fn what_is_sent_with_the_request_is_not_lost() {
    let secret = Secret::new().await;
    let url = secret.place.server.url(exec(&["cat"], "io")).unwrap();
    let mut socket = secret.connect(&url).await.unwrap();
    // One write, and so one record: the request, and a frame with "early" on channel 0.
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
        split(&url).1
    );
    let frame = b"\x82\x86\0\0\0\0\0early";
    socket.write_all(&[request.as_bytes(), frame].concat()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.windows(6).any(|said| said == b"\x01early") {
        assert!(within(socket.read_buf(&mut heard)).await.unwrap() > 0);
    }
    drop(socket);
    secret.place.is_empty().await;
    secret.place.stop().await;
}

#[tokio::test]
async fn much_is_fed_to_a_command_and_comes_from_a_pod_through_readers_that_stall() {
    let secret = Secret::new().await;
    let (url, _carrier) = secret.carried(exec(&["check"], "io")).await;
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    let (stdin, stdout) = (client.typed("stdin").await, client.typed("stdout").await);
    bulk::upload(&secret.place, &mut client, stdin).await;
    client.finish().await;
    assert_eq!(client.text(stdout), bulk::good());

    let (url, _carrier) = secret.carried(exec(&["pour"], "o")).await;
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    let stdout = client.typed("stdout").await;
    bulk::download(&secret.place, &mut client, stdout).await;
    client.finish().await;
    drop(client);
    secret.place.is_empty().await;
    secret.place.stop().await;
}

#[tokio::test]
async fn a_client_that_says_farewell_or_goes_without_a_word_leaves_nothing() {
    let secret = Secret::new().await;
    for politely in [true, false] {
        let url = secret.place.server.url(forward(&[])).unwrap();
        let mut socket = secret.connect(&url).await.unwrap();
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n",
            split(&url).1
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within(socket.read_u8()).await.unwrap());
        }
        if politely {
            socket.get_mut().1.send_close_notify();
            socket.flush().await.unwrap();
            let mut rest = Vec::new();
            within(socket.read_to_end(&mut rest)).await.expect("it ends as TLS is to end");
        }
        drop(socket);
        secret.place.is_empty().await;
    }
    secret.place.stop().await;
}

#[tokio::test]
async fn what_is_no_tls_and_what_breaks_it_is_not_served() {
    let secret = Secret::new().await;
    let url = secret.place.server.url(exec(&["cat"], "io")).unwrap();
    let (address, path) = split(&url);
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(socket.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is told in the clear");

    // Garbage after the upgrade, beneath TLS.
    let mut socket = secret.connect(&url).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within(socket.read_u8()).await.unwrap());
    }
    let (mut below, _tls) = socket.into_inner();
    below.write_all(&[b'?'; 4 << 10]).await.unwrap();
    let mut rest = Vec::new();
    let _ = within(below.read_to_end(&mut rest)).await;
    drop(below);
    secret.place.is_empty().await;
    secret.place.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_the_one_that_the_next_client_sees() {
    let secret = Secret::new().await;
    let url = secret.place.server.url(exec(&["cat"], "io")).unwrap();
    let before = trusting(&secret.files.certificate);
    connect(split(&url).0, &before).await.expect("it is the one that is believed in");
    certify(secret.files.certificate.parent().unwrap());
    connect(split(&url).0, &before).await.expect_err("it is another by now");
    secret.connect(&url).await.expect("and that is believed in");
    secret.place.stop().await;
}

#[tokio::test]
async fn a_server_whose_files_cannot_be_used_does_not_start() {
    let files = Files { certificate: "/no/such/cert.pem".into(), key: "/no/such/key.pem".into() };
    let config = Config { tls: Some(files), idle: Duration::from_secs(1), ..Config::default() };
    let bound = streaming::Server::bind(config, Arc::new(crate::fake::Fake::default())).await;
    let error = bound.err().unwrap();
    assert_eq!(error.class(), names::Class::FailedPrecondition);
    let told = names::chain(&error);
    assert!(told.contains("/no/such/cert.pem: No such file"), "{told}");
}
