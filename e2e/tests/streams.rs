//! Exec, attach and port-forward, by a real client: crictl.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{Daemon, Options, eventually, is_true, mount, sleeps};
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
        command.args(["--runtime-endpoint", &endpoint]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn exec(&self, transport: &str, container: &str, words: &[&str]) -> Command {
        self.crictl(&[&["exec", "--transport", transport, container], words].concat())
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_killed_half_way_and_commands_that_end_leave_nothing() {
    let Some(node) = Node::start().await else { return };
    let cri = node.node.cri();
    let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
    let container = cri.launch(&pod, &sleeps("c")).await.unwrap();
    let run = |words: &[&str]| -> Vec<Child> {
        let transports = TRANSPORTS.iter().cycle().take(40);
        transports.map(|by| node.exec(by, &container, words).spawn().unwrap()).collect()
    };
    let wait = |children: Vec<Child>| {
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && output.stdout == b"done\n", "{said}");
        }
    };
    wait(run(&["echo", "done"]));
    let before = node.node.snapshot();
    let descriptors = node.node.descriptors();
    for _ in 0..5 {
        wait(run(&["echo", "done"]));
        let mut killed = run(&["sh", "-c", "echo begun; sleep 77777"]);
        for client in &mut killed {
            let mut begun = [0; 6];
            client.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        }
        for mut client in killed {
            client.kill().unwrap();
            client.wait().unwrap();
        }
    }
    node.node.assert_untouched(&before, "clients that were killed").await;
    let same = async || is_true(node.node.descriptors() <= descriptors);
    eventually("the daemon has no descriptor more", same).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_connections_go_through_one_port_forward_byte_for_byte() {
    let Some(node) = Node::start().await else { return };
    let cri = node.node.cri();
    let pod = cri.run_pod(&node.node.pod("p")).await.unwrap();
    echo_inside(&node.node.place.state().join("netns").join(&pod), 7777);
    for transport in TRANSPORTS {
        let port = e2e::free_port();
        let mapping = format!("{port}:7777");
        let words = ["port-forward", "--transport", transport, &pod, &mapping];
        let mut client = node.crictl(&words).spawn().unwrap();
        let listens = async || is_true(TcpStream::connect(("127.0.0.1", port)).is_ok());
        eventually("crictl listens", listens).await;
        let talk = move |n: u8| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let sent: Vec<u8> = (0..200_000_u32).map(|k| k.to_le_bytes()[0] ^ n).collect();
            let (copy, mut to) = (sent.clone(), stream.try_clone().unwrap());
            let writer = std::thread::spawn(move || to.write_all(&copy).unwrap());
            let mut got = vec![0; sent.len()];
            stream.read_exact(&mut got).unwrap();
            writer.join().unwrap();
            assert!(got == sent, "connection {n}");
        };
        let talks: Vec<_> = (0..100).map(|n| std::thread::spawn(move || talk(n))).collect();
        for talk in talks {
            talk.join().unwrap();
        }
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
