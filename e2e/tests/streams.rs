//! Exec, attach and port-forward, by a real client: crictl.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    fs,
    io::{Read, Write},
    iter,
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use cri_proto::v1;
use e2e::{Daemon, Held, Options, Snapshot, eventually, is_true, mount, sleeps};
use rustix::process::{Resource, Rlimit};
use sha2::{Digest, Sha256};

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// Where `conformance/setup` has put it.
fn crictl() -> Option<PathBuf> {
    let folder = std::env::var_os("CONFORMANCE_OUT").map(PathBuf::from);
    let folder = folder
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/conformance"));
    let program = folder.join("bin/crictl");
    if !program.is_file() {
        eprintln!("skipped: there is no {}; run conformance/setup", program.display());
        return None;
    }
    Some(program)
}

/// A daemon, and crictl for it.
struct Node {
    node: Daemon,
    crictl: PathBuf,
}

impl Node {
    async fn start() -> Option<Self> {
        let crictl = crictl()?;
        Some(Self { node: Daemon::start(Options::default()).await?, crictl })
    }

    fn crictl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.crictl);
        let endpoint = format!("unix://{}", self.node.place.socket().display());
        // Two seconds, as it has it, are little for one of hundreds.
        command.args(["--runtime-endpoint", &endpoint, "--timeout", "60s"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn exec(&self, transport: &str, container: &str, words: &[&str]) -> Command {
        self.crictl(&[&["exec", "--transport", transport, container], words].concat())
    }
}

/// A certificate for the loopback and its key, by openssl. A client can show the same. crictl looks for
/// the name, whatever the URL says, and the kubelet for the address.
fn certify(dir: &Path) -> [String; 2] {
    let [certificate, key] =
        ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                 -subj /CN=podbay -addext subjectAltName=IP:127.0.0.1,DNS:localhost";
    let mut args: Vec<&str> = words.split_whitespace().collect();
    args.extend(["-keyout", &key, "-out", &certificate]);
    e2e::run("openssl", &args);
    [certificate, key]
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_clients_are_served_that_trust_the_certificate_and_the_next_one_when_it_changes() {
    let Some(crictl) = crictl() else { return };
    if !e2e::has("openssl") {
        return;
    }
    let Some(mut node) = Daemon::prepare(Options::default()).await else { return };
    let (folder, other) = (node.folder("tls"), node.folder("other"));
    let [certificate, key] = certify(&folder);
    let [foreign, foreign_key] = certify(&other);
    node.set("streaming.tls_certificate", &format!("{certificate:?}"));
    node.set("streaming.tls_key", &format!("{key:?}"));
    node.start_again().await;
    node.make_image().await;
    let node = Node { node, crictl };
    let cri = node.node.cri();
    let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
    let container = cri.launch(&pod, &sleeps("c")).await.unwrap();
    // crictl wants a certificate of its own with a CA; the server asks for none.
    let run = |transport: &str, tls: &[&str]| {
        let words = [&["exec", "--transport", transport], tls, &[&*container, "seq", "100000"]];
        let output = node.crictl(&words.concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(output.stdout.len()),
            false => Err(said),
        }
    };
    let whole = (1..=100_000_u32).map(|n| n.to_string().len() + 1).sum();
    let trusting = ["--tls-ca", &*certificate, "--tls-cert", &*certificate, "--tls-key", &*key];
    let wary = ["--tls-ca", &*foreign, "--tls-cert", &*foreign, "--tls-key", &*foreign_key];
    for transport in TRANSPORTS {
        assert_eq!(run(transport, &trusting), Ok(whole), "{transport}");
        assert_eq!(run(transport, &[]), Ok(whole), "{transport}: who trusts anybody");
        let why = run(transport, &wary).expect_err("it trusts somebody else");
        assert!(why.contains("certificate"), "{why}");
    }
    fs::copy(&foreign_key, &key).unwrap();
    fs::copy(&foreign, &certificate).unwrap();
    assert_eq!(run("spdy", &wary), Ok(whole), "by now it is that certificate");
    let request = v1::ExecRequest {
        container_id: container.clone(),
        cmd: vec!["true".into()],
        stdout: true,
        ..Default::default()
    };
    let url = cri.runtime().exec(request).await.unwrap().into_inner().url;
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let Some(node) = Daemon::start_bare(Options::default()).await else { return };
    let folder = node.folder("tls");
    let key = folder.join("key.pem").display().to_string();
    fs::write(&key, "no key").unwrap();
    let base = node.place.base.join("second");
    let toml =
        node.toml().replace(&node.place.base.display().to_string(), &base.display().to_string());
    let tls = |text: &str| format!("{toml}streaming.tls_certificate = {key:?}\n{text}");
    let ended = node.one_more(&tls("")).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("go together"), "{said}");
    let ended = node.one_more(&tls(&format!("streaming.tls_key = {key:?}\n"))).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("key.pem holds no PEM certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_arrives_whole_though_its_reader_stalls() {
    let Some(node) = Node::start().await else { return };
    let cri = node.node.cri();
    let folder = node.node.folder("data");
    let piece: Vec<u8> =
        (0_u32..16 << 20).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    fs::write(folder.join("f"), &piece).unwrap();
    let times = 500_usize.div_ceil(piece.len() >> 20);
    let mut wanted = Sha256::new();
    (0..times).for_each(|_| wanted.update(&piece));
    let wanted = wanted.finalize();
    let mut config = sleeps("c");
    config.mounts.push(mount(&folder, "/data"));
    let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
    let container = cri.launch(&pod, &config).await.unwrap();
    let files = vec!["/data/f"; times];
    for transport in TRANSPORTS {
        let command = [&["cat"], &files[..]].concat();
        let mut client = node.exec(transport, &container, &command).spawn().unwrap();
        let mut output = client.stdout.take().unwrap();
        let (mut got, mut buffer, mut count) = (Sha256::new(), vec![0; 1 << 20], 0);
        while let n @ 1.. = output.read(&mut buffer).unwrap() {
            if count == 0 {
                // As long as everything between takes to fill up.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            got.update(&buffer[..n]);
            count += n;
        }
        assert_eq!(count, times * piece.len(), "{transport}");
        assert!(got.finalize() == wanted, "{transport}: the bytes are others");
        assert!(client.wait().unwrap().success(), "{transport}");
    }
}

/// How many clients come at once.
const CROWD: usize = 200;

/// One crowd at a time: each client of it is a process of some 20 MiB.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A container that is streamed to, and what there was before.
struct Quiet {
    node: Node,
    container: String,
    snapshot: Snapshot,
    held: Held,
}

impl Quiet {
    async fn start() -> Option<Self> {
        // What a client takes of ours, and what it takes of the daemon, which has our limit.
        let most = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: most, maximum: most };
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        let node = Node::start().await?;
        let cri = node.node.cri();
        let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
        let container = cri.launch(&pod, &sleeps("c")).await.unwrap();
        for transport in TRANSPORTS {
            let first = node.exec(transport, &container, &["true"]).output().unwrap();
            assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
        }
        let held = node.node.held_at_rest().await;
        assert_eq!(held.processes(), 2, "the daemon and its shim: {held:?}");
        let snapshot = node.node.snapshot();
        Some(Self { node, container, snapshot, held })
    }

    /// Starts as many clients, whose commands differ by a number.
    fn crowd(&self, transport: &str, line: impl Fn(usize) -> String) -> Vec<Child> {
        let client = |n| {
            let command = ["-i", &self.container, "sh", "-c", &line(n)];
            let words = [&["exec", "--transport", transport], &command[..]].concat();
            self.node.crictl(&words).stdin(Stdio::piped()).spawn().unwrap()
        };
        (0..CROWD).map(client).collect()
    }

    async fn assert_untouched(&self, after: &str) {
        self.node.node.assert_untouched(&self.snapshot, after).await;
        self.node.node.assert_holds_no_more(&self.held, after).await;
    }
}

/// Waits until all of them run, by the first line of their output.
fn all_have_begun(clients: &mut [Child]) {
    for (n, client) in clients.iter_mut().enumerate() {
        let mut begun = [0; 6];
        if client.stdout.as_mut().unwrap().read_exact(&mut begun).is_err() {
            let mut said = String::new();
            client.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            panic!("client {n} has ended: {said}");
        }
        assert_eq!(&begun, b"begun\n", "client {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_commands_at_once_are_told_right_from_wrong_and_leave_nothing() {
    let _alone = ALONE.lock().await;
    let Some(quiet) = Quiet::start().await else { return };
    let line = |n| format!("echo begun; read word; seq {n} 4000; echo $word >&2; exit {n}");
    for transport in TRANSPORTS {
        let mut clients = quiet.crowd(transport, line);
        // None ends before it is told to.
        all_have_begun(&mut clients);
        for (n, client) in clients.iter_mut().enumerate() {
            writeln!(client.stdin.take().unwrap(), "word-{n}.").unwrap();
        }
        for (n, client) in clients.into_iter().enumerate() {
            let output = client.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let wanted: String = (n..=4000).map(|number| format!("{number}\n")).collect();
            assert!(output.stdout == wanted.as_bytes(), "{transport} {n}: {said}");
            assert!(said.contains(&format!("word-{n}.")), "{transport} {n}: {said}");
            let told = said.split_once("exit code ").map(|(_, code)| code.trim_end());
            let code = (n > 0).then(|| n.to_string());
            assert_eq!(told.map(|code| code.trim_end_matches('"')), code.as_deref(), "{said}");
            assert_eq!(output.status.success(), n == 0, "{transport} {n}: {said}");
        }
        quiet.assert_untouched(&format!("commands over {transport}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_that_are_killed_half_way_leave_nothing() {
    let _alone = ALONE.lock().await;
    let Some(quiet) = Quiet::start().await else { return };
    // Some wait, some fill up all that is between, and some ignore that nobody listens.
    let lines = ["exec sleep 77777", "exec yes", "trap '' PIPE HUP TERM; cat; exec sleep 77777"];
    for transport in TRANSPORTS {
        let mut clients = quiet.crowd(transport, |n| format!("echo begun; {}", lines[n % 3]));
        all_have_begun(&mut clients);
        for client in &mut clients {
            client.kill().unwrap();
        }
        for client in &mut clients {
            client.wait().unwrap();
        }
        quiet.assert_untouched(&format!("clients over {transport} that were killed")).await;
    }
}

/// Gives back what it gets, in the network of a pod, for as long as the test runs.
fn echo_inside(netns: &Path, port: u16) {
    let netns = fs::File::open(netns).unwrap();
    let (ready, listening) = std::sync::mpsc::channel();
    let serve = move || {
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(netns.as_fd(), network).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    };
    std::thread::spawn(serve);
    listening.recv().unwrap();
}

/// How many clients have a connection to this port of the loopback, as the kernel lists them.
fn sessions(port: u16) -> usize {
    let (local, established) = (format!("0100007F:{port:04X}"), "01");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1] == local && fields[3] == established
    };
    table.lines().filter(is_one).count()
}

/// A connection through which one byte has gone and come back.
fn connected(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"?").unwrap();
    let mut echo = [0];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"?");
    stream
}

/// Sends much, while reading it.
fn talk(mut stream: TcpStream, n: u8) {
    let sent: Vec<u8> = (0..200_000_u32).map(|k| k.to_le_bytes()[0] ^ n).collect();
    let (copy, mut to) = (sent.clone(), stream.try_clone().unwrap());
    let writer = std::thread::spawn(move || to.write_all(&copy).unwrap());
    let mut got = vec![0; sent.len()];
    stream.read_exact(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == sent, "connection {n}");
}

fn at_once<T, R>(all: impl Iterator<Item = T>, work: fn(T) -> R) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let all: Vec<_> = all.map(|it| std::thread::spawn(move || work(it))).collect();
    all.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_connections_go_through_one_session_byte_for_byte() {
    let Some(node) = Node::start().await else { return };
    let cri = node.node.cri();
    let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
    echo_inside(&node.node.place.state().join("netns").join(&pod), 7777);
    // Nobody comes with this URL, but it tells where the others lead.
    let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![7777] };
    let url = cri.runtime().port_forward(request).await.unwrap().into_inner().url;
    let streaming: u16 = url.split([':', '/']).nth(4).unwrap().parse().unwrap();
    for transport in TRANSPORTS {
        let port = e2e::free_port();
        let mapping = format!("{port}:7777");
        let words = ["port-forward", "--transport", transport, &pod, &mapping];
        let mut client = node.crictl(&words).spawn().unwrap();
        let listens = async || is_true(TcpStream::connect(("127.0.0.1", port)).is_ok());
        eventually("crictl listens", listens).await;
        let all = at_once(iter::repeat_n(port, 100), connected);
        assert_eq!(sessions(streaming), 1, "{transport}: all 100 share a session");
        at_once(all.into_iter().zip(0..), |(stream, n)| talk(stream, n));
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_container_that_does_not_run_is_refused_with_why() {
    let Some(node) = Node::start().await else { return };
    let cri = node.node.cri();
    let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
    let container = cri.create(&pod, &sleeps("c")).await.unwrap();
    for transport in TRANSPORTS {
        let output = node.exec(transport, &container, &["true"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("does not run"), "{said}");
    }
    cri.start(&container).await.unwrap();
    let output = node.exec("spdy", &container, &["no-such-program"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no-such-program"), "{said}");
    let output = node.exec("websocket", &container, &["sh", "-c", "exit 7"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains('7'), "{said}");
}
