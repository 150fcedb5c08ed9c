//! A host to test on: this process again, alone in a network and a mount namespace of its own, so
//! that the machine's network is untouched and whatever is made goes away with the process.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use names::PodId;
use network::{Bridge, Config, HostPort, Lease, Protocol};
use sys::netns;

/// Says to this program that it is already alone, and which directory is for it.
const ALONE: &str = "PODBAY_TEST_IS_ALONE";
/// How long a connection that should come to pass may take.
const SOON: Duration = Duration::from_secs(3);
/// How long one that should not is waited for.
const NEVER: Duration = Duration::from_millis(700);

/// The host's address towards the outside, and that of a machine there.
pub const HOST: &str = "192.0.2.1";
pub const OUTSIDE: &str = "192.0.2.2";
pub const HOST6: &str = "fd00:99::1";
pub const OUTSIDE6: &str = "fd00:99::2";

pub struct World {
    pub dir: PathBuf,
}

/// Runs `body`, which is a closure of the test that calls this, alone.
pub fn alone<F: Future<Output = ()>>(body: impl FnOnce(World) -> F) {
    let Some(dir) = std::env::var_os(ALONE) else {
        let name = std::any::type_name_of_val(&body).trim_end_matches("::{{closure}}");
        return again_alone(name.split_once("::").expect("the crate, then the test").1);
    };
    let world = World::new(dir.into());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(120);
    runtime.block_on(async { tokio::time::timeout(limit, body(world)).await.expect("in time") });
}

fn again_alone(name: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {name} makes network namespaces and so needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--include-ignored", "--test-threads", "1"])
        .env(ALONE, dir.path())
        .output()
        .expect("unshare (util-linux) is installed");
    let said = String::from_utf8_lossy(&ran.stdout);
    print!("{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{name} failed when alone");
}

pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let ran = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

pub fn pod(n: u8) -> PodId {
    let mut bytes = [0; 32];
    bytes[0] = n;
    PodId::from_bytes(bytes)
}

pub fn port(protocol: Protocol, ip: Option<&str>, host_port: u16, to: u16) -> HostPort {
    let host_ip = ip.map(|ip| ip.parse().unwrap());
    HostPort { protocol, host_ip, host_port, container_port: to }
}

pub fn sysctl(name: &str) -> String {
    fs::read_to_string(Path::new("/proc/sys/net").join(name)).unwrap().trim().to_owned()
}

pub fn set_sysctl(name: &str, value: &str) {
    fs::write(Path::new("/proc/sys/net").join(name), value).unwrap();
}

/// Waits until the kernel takes packets to an IPv6 address, which it leaves to a worker.
fn await_local(ip: &str, routes: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while !run(routes).contains(&format!("local {ip} ")) {
        assert!(Instant::now() < until, "{ip} is never ready");
    }
}

impl World {
    fn new(dir: PathBuf) -> World {
        // What is in it, namespaces that are pinned too, goes away with this process.
        run(&format!("mount -t tmpfs tmpfs {}", dir.display()));
        run("ip link set lo up");
        let world = World { dir };
        netns::make(&world.outside(), &[]).unwrap();
        let outside = world.outside();
        let outside = outside.display();
        run("ip link add uplink type veth peer name far");
        run(&format!("ip link set far netns {outside}"));
        run(&format!("ip address add {HOST}/24 dev uplink"));
        run(&format!("ip -6 address add {HOST6}/64 dev uplink nodad"));
        run("ip link set uplink up");
        run(&format!("nsenter --net={outside} ip address add {OUTSIDE}/24 dev far"));
        run(&format!("nsenter --net={outside} ip -6 address add {OUTSIDE6}/64 dev far nodad"));
        run(&format!("nsenter --net={outside} ip link set far up"));
        await_local(HOST6, "ip -6 route show table local");
        await_local(OUTSIDE6, &format!("nsenter --net={outside} ip -6 route show table local"));
        world
    }

    /// A network namespace that is another machine's.
    pub fn outside(&self) -> PathBuf {
        self.dir.join("outside")
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("leases")
    }

    pub fn config(&self, subnets: &[&str]) -> Config {
        let subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
        Config { subnets, ..Config::new(self.root()) }
    }

    pub fn bridge(&self) -> Bridge {
        Bridge::new(self.config(&["10.88.0.0/16"])).unwrap()
    }

    pub fn both(&self) -> Bridge {
        Bridge::new(self.config(&["10.88.0.0/16", "fd00:88::/64"])).unwrap()
    }

    pub fn netns(&self, n: u8) -> PathBuf {
        self.dir.join(format!("pod{n}"))
    }

    /// A pod with a namespace, reserved and attached.
    pub async fn attached(&self, bridge: &Bridge, n: u8, ports: Vec<HostPort>) -> Lease {
        let lease = bridge.reserve(&pod(n), ports).await.unwrap();
        netns::make(&self.netns(n), &[]).unwrap();
        bridge.attach(&pod(n), &self.netns(n), &lease).await.unwrap();
        lease
    }

    /// What pods left on the host: interfaces, elements of maps, lease files.
    pub fn leaks(&self, bridge: &str) -> Vec<String> {
        let links = run("ip -o link");
        let links = links.lines().filter(|line| line.contains(": pb")).map(str::to_owned);
        let table = run(&format!("nft list table inet podbay-{bridge}"));
        let elements = table.lines().filter(|line| line.contains("elements")).map(str::to_owned);
        let files = fs::read_dir(self.root()).unwrap();
        let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        links.chain(elements).chain(files).collect()
    }
}

pub fn ip(lease: &Lease) -> IpAddr {
    lease.addresses[0].ip
}

/// Does it in a namespace, or here on the host.
fn at<T: Send>(netns: Option<&Path>, work: impl FnOnce() -> T + Send) -> T {
    match netns {
        Some(path) => netns::within(path, work).unwrap(),
        None => work(),
    }
}

/// Answers each connection with `name` and the address that it came from, as long as the test runs.
pub fn serve_tcp(netns: Option<&Path>, ip: IpAddr, port: u16, name: &'static str) {
    let listener = at(netns, || TcpListener::bind((ip, port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{name} {from}");
        }
    });
}

/// Answers each datagram likewise.
pub fn serve_udp(netns: Option<&Path>, ip: IpAddr, port: u16, name: &'static str) {
    let socket = at(netns, || UdpSocket::bind((ip, port)).unwrap());
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            let mut answer = vec![bytes[0]];
            answer.extend(format!("{name} {}", from.ip()).into_bytes());
            let _ = socket.send_to(&answer, from);
        }
    });
}

pub fn ask_tcp(netns: Option<&Path>, ip: &str, port: u16) -> io::Result<String> {
    at(netns, || tcp(SocketAddr::new(ip.parse().unwrap(), port), SOON))
}

/// Whether it cannot be reached, in the time that it would take.
pub fn is_deaf(netns: Option<&Path>, ip: &str, port: u16) -> bool {
    at(netns, || tcp(SocketAddr::new(ip.parse().unwrap(), port), NEVER)).is_err()
}

fn tcp(to: SocketAddr, limit: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// A client that keeps its port. Each of its questions has a number, which the answer repeats.
pub struct Udp(UdpSocket, AtomicU8);

impl Udp {
    pub fn new(netns: Option<&Path>, to: &str, port: u16) -> Udp {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = at(netns, || UdpSocket::bind(any).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.connect(to).unwrap();
        Udp(socket, AtomicU8::new(0))
    }

    /// Asks until there is an answer: datagrams may be lost while a neighbour is being resolved.
    pub fn ask(&self) -> io::Result<String> {
        let until = Instant::now() + SOON;
        loop {
            match self.ask_once() {
                Err(e) if Instant::now() > until => return Err(e),
                Err(_) => {}
                answered => return answered,
            }
        }
    }

    pub fn ask_once(&self) -> io::Result<String> {
        let question = self.1.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; 64];
        self.0.send(&[question])?;
        loop {
            let length = self.0.recv(&mut bytes)?;
            if bytes[0] == question {
                return Ok(String::from_utf8_lossy(&bytes[1..length]).into_owned());
            }
        }
    }
}
