//! What the tests of the shim share: a pod with a real shim, and bundles of busybox. Everything is
//! named by the test's process, and goes with the pod.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shim::source::Source;
use shim_api::{CreateTask, ExecOutput, ExecSync, Exit, Shim};
use sys::cgroup::{Cgroup, Layout};

pub const SOON: Duration = Duration::from_secs(30);
pub const RUNC: &str = "/usr/sbin/runc";
const BUSYBOX: &str = "/bin/busybox";
const TOOLS: [&str; 23] = [
    "sh", "echo", "cat", "sleep", "true", "head", "tr", "dd", "ls", "mkdir", "grep", "tty", "stty",
    "id", "seq", "touch", "env", "pwd", "kill", "printf", "wc", "readlink", "mkfifo",
];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pod's directory and its shim.
pub struct Pod {
    pub dir: PathBuf,
    pub shim: Shim,
    pub process: Child,
    /// Below the root of each hierarchy; goes with the pod.
    pub cgroup: String,
    runtime: String,
}

impl Pod {
    pub fn start(runtime: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("podbay-test-{}-{number}", std::process::id());
        let dir = Path::new("/tmp").join(&name);
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("shim.sock");
        let log = fs::File::create(dir.join("shim.log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_podbay-shim"))
            .args(["--pod", &name, "--dir"])
            .arg(&dir)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let life = dir.join("shim.pid");
        until("the shim is up", || life.exists());
        let shim = Shim::new(socket);
        Self { dir, shim, process, cgroup: format!("/{name}"), runtime: runtime.to_owned() }
    }

    pub fn bundle(&self, id: &str, args: &[&str]) -> Bundle {
        let dir = self.dir.join("containers").join(id);
        make_rootfs(&dir.join("rootfs"));
        let config = config(&format!("{}/{id}", self.cgroup), args);
        Bundle { id: id.to_owned(), dir, config, terminal: false, stdin: false }
    }

    pub async fn create(&self, bundle: &Bundle) -> Result<u32, shim_api::Error> {
        self.shim.create(self.request(bundle), SOON).await
    }

    pub fn request(&self, bundle: &Bundle) -> CreateTask {
        fs::write(bundle.dir.join("config.json"), bundle.config.to_string()).unwrap();
        CreateTask {
            id: bundle.id.clone(),
            bundle: bundle.dir.clone(),
            runtime: self.runtime.clone(),
            log: Some(bundle.log()),
            terminal: bundle.terminal,
            stdin: bundle.stdin,
            ..CreateTask::default()
        }
    }

    /// Creates and starts it.
    pub async fn run(&self, bundle: &Bundle) -> u32 {
        let pid = self.create(bundle).await.unwrap();
        assert_eq!(self.shim.start(&bundle.id, SOON).await.unwrap(), pid);
        pid
    }

    /// Runs it to its end.
    pub async fn run_out(&self, bundle: &Bundle) -> Exit {
        self.run(bundle).await;
        self.wait(&bundle.id).await
    }

    pub async fn wait(&self, id: &str) -> Exit {
        tokio::time::timeout(SOON, self.shim.wait(id)).await.expect("it ends").unwrap()
    }

    pub async fn exec(&self, id: &str, args: &[&str]) -> Result<ExecOutput, shim_api::Error> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.shim.exec_sync(id, ExecSync { args, timeout: Some(SOON) }).await
    }

    /// Runs a command and gives its stdout.
    pub async fn say(&self, id: &str, args: &[&str]) -> String {
        let output = self.exec(id, args).await.unwrap();
        assert_eq!(output.code, 0, "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A connection of one's own, for what the client does not do.
    pub async fn line(&self) -> ttrpc::r#async::Client {
        let stream = tokio::net::UnixStream::connect(self.dir.join("shim.sock")).await.unwrap();
        ttrpc::r#async::Client::new(ttrpc::r#async::transport::Socket::new(stream))
    }

    /// Where descriptors are handed over.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("streams.sock")
    }

    /// The pid of a container's init.
    pub async fn init(&self, id: &str) -> u32 {
        self.shim.state(id, SOON).await.unwrap().pid
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn cgroup(&self, id: &str) -> Cgroup {
        let path = format!("{}/{id}", self.cgroup);
        Cgroup::new(&Layout::detect().unwrap(), Path::new(&path)).unwrap()
    }

    /// Moves a process into a cgroup of the pod's, in each hierarchy that has it.
    pub fn put(&self, pid: &str, group: &str) {
        let root = Path::new("/sys/fs/cgroup");
        let mounts = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let inside = format!("{}/{group}/cgroup.procs", &self.cgroup[1..]);
        let files = mounts.chain([root.to_owned()]).map(|mount| mount.join(&inside));
        let moved = files.filter(|file| file.exists()).map(|file| fs::write(file, pid).unwrap());
        assert!(moved.count() > 0);
    }

    /// Every child of the shim, dead or alive: `pid state name`.
    pub fn children(&self) -> Vec<String> {
        let list = format!("/proc/{0}/task/{0}/children", self.pid());
        let list = fs::read_to_string(list).unwrap_or_default();
        let stat = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let end = stat.rfind(") ")?;
            Some(stat[..end + 3].to_owned())
        };
        list.split_whitespace().filter_map(stat).collect()
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("shim.log")).unwrap_or_default()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the shim said: {}", self.log());
        }
        let cgroup = Cgroup::new(&Layout::detect().unwrap(), Path::new(&self.cgroup)).unwrap();
        let _ = cgroup.kill();
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = cgroup.kill();
        let _ = cgroup.remove();
        // On a hybrid host runc makes one there too.
        let unified = format!("/sys/fs/cgroup/unified{}", self.cgroup);
        for below in fs::read_dir(&unified).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(below.path());
        }
        let _ = fs::remove_dir(unified);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A bundle whose config a test may still change.
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    pub config: Value,
    pub terminal: bool,
    pub stdin: bool,
}

impl Bundle {
    pub fn log(&self) -> PathBuf {
        self.dir.join("0.log")
    }

    /// What a reader of the log makes of one of the streams.
    pub fn logged(&self, stream: &str) -> String {
        let log = fs::read(self.log()).unwrap();
        let mut all = Vec::new();
        for line in log.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").expect("every line ends");
            let mut fields = line.splitn(4, |byte| *byte == b' ');
            let time = fields.next().unwrap();
            assert!(time.len() == 30 && time.ends_with(b"Z"), "{}", String::from_utf8_lossy(line));
            if fields.next().unwrap() != stream.as_bytes() {
                continue;
            }
            let tag = fields.next().unwrap();
            all.extend_from_slice(fields.next().unwrap());
            all.extend((tag == b"F").then_some(b'\n'));
        }
        String::from_utf8(all).unwrap()
    }
}

fn make_rootfs(rootfs: &Path) {
    for dir in ["bin", "proc", "dev", "sys", "etc", "tmp", "root"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
    for tool in TOOLS {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(tool)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:\n")
        .unwrap();
}

fn config(cgroup: &str, args: &[&str]) -> Value {
    let caps = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"];
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin", "HOME=/root", "GREETING=hello"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "oomScoreAdj": 500,
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "test",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
        },
    })
}

/// Waits for something that must soon be so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        rustix::event::poll(&mut [], Some(&pause)).unwrap();
    }
}

/// The same, but lets other tasks run meanwhile.
pub async fn eventually(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// All that can be read.
pub async fn whole(from: OwnedFd) -> Vec<u8> {
    hear_all(&Source::new(from).unwrap()).await
}

/// All that can still be read.
pub async fn hear_all(from: &Source) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let read = async {
        while let n @ 1.. = from.read(&mut piece).await.unwrap() {
            all.extend_from_slice(&piece[..n]);
        }
    };
    tokio::time::timeout(SOON, read).await.expect("it ends");
    all
}

/// So many bytes.
pub async fn hear(from: &Source, length: usize) -> String {
    let mut heard = vec![0; length];
    let mut filled = 0;
    let read = async {
        while filled < length {
            let n = from.read(&mut heard[filled..]).await.unwrap();
            assert!(n > 0, "it ends early");
            filled += n;
        }
    };
    let late = tokio::time::timeout(SOON, read).await.is_err();
    assert!(!late, "heard only {:?}", String::from_utf8_lossy(&heard));
    String::from_utf8(heard).unwrap()
}

/// Writes all of it, and closes.
pub async fn write_all(to: OwnedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::AGAIN) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

/// Makes a test of each of these, with each runtime.
#[macro_export]
macro_rules! with_each_runtime {
    ($($name:ident)*) => {
        mod builtin {
            $(#[tokio::test] async fn $name() { super::$name("").await })*
        }
        mod runc {
            $(#[tokio::test] async fn $name() {
                if !std::path::Path::new($crate::common::RUNC).exists() {
                    eprintln!("skipped: there is no {}", $crate::common::RUNC);
                    return;
                }
                super::$name($crate::common::RUNC).await
            })*
        }
    };
}
