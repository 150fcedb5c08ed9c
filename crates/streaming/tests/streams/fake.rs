//! Commands and pods that are made up. What a command does is its name.

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use streaming::{Attach, End, Exec, Process, Refusal, Size, Stream, Streams, Target, Terminal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy, duplex, split},
    sync::{mpsc, watch},
};

/// As much as a pipe of the kernel's holds at least.
const PIPE: usize = 4 << 10;

/// How many bytes `pour` says.
pub const MUCH: usize = 64 << 20;

#[derive(Default)]
pub struct Fake {
    /// How many commands and connections there are.
    pub alive: Arc<Alive>,
    /// Opened for commands that wait at it.
    pub gate: Gate,
    /// How many bytes `pour` has said.
    pub poured: Arc<AtomicUsize>,
}

pub struct Alive(watch::Sender<usize>);

impl Default for Alive {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Alive {
    fn one(self: &Arc<Self>) -> One {
        self.0.send_modify(|count| *count += 1);
        One(Arc::clone(self))
    }

    pub async fn come_to(&self, count: usize) {
        self.0.subscribe().wait_for(|now| *now == count).await.unwrap();
    }
}

struct One(Arc<Alive>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

/// A command's own ends.
struct Own {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<Size>,
    gate: watch::Receiver<bool>,
    poured: Arc<AtomicUsize>,
}

struct Sizes(mpsc::Sender<Size>);

#[async_trait]
impl Terminal for Sizes {
    async fn resize(&mut self, size: Size) -> Result<(), Refusal> {
        self.0.send(size).await.map_err(|_| Refusal::new("it has ended"))
    }
}

impl Fake {
    fn begin(&self, command: Vec<String>, streams: Streams) -> Process {
        let (stdin, own_stdin) = duplex(PIPE);
        let (stdout, own_stdout) = duplex(PIPE);
        let (stderr, own_stderr) = duplex(PIPE);
        let (sizes, own_sizes) = mpsc::channel(1);
        let (gate, poured) = (self.gate.0.subscribe(), Arc::clone(&self.poured));
        let own = Own {
            stdin: own_stdin,
            stdout: own_stdout,
            stderr: own_stderr,
            sizes: own_sizes,
            gate,
            poured,
        };
        let one = self.alive.one();
        let mut running = tokio::spawn(async move { run(&command, own).await.unwrap_or(1) });
        let end: End = Box::pin(async move {
            let _one = one;
            let _killer = Killer(running.abort_handle());
            (&mut running).await.map_err(|error| Refusal::of(&error))
        });
        Process {
            stdin: streams.stdin.then(|| Box::new(stdin) as _),
            stdout: streams.stdout.then(|| Box::new(stdout) as _),
            stderr: streams.stderr.then(|| Box::new(stderr) as _),
            terminal: streams.tty.then(|| Box::new(Sizes(sizes)) as _),
            end,
        }
    }
}

struct Killer(tokio::task::AbortHandle);

impl Drop for Killer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Target for Fake {
    async fn exec(&self, exec: &Exec) -> Result<Process, Refusal> {
        match exec.command[0].as_str() {
            "refuse" => Err(Refusal::new("there is no such program")),
            _ => Ok(self.begin(exec.command.clone(), exec.streams)),
        }
    }

    async fn attach(&self, attach: &Attach) -> Result<Process, Refusal> {
        match attach.container.as_str() {
            "none" => Err(Refusal::new("there is no such container")),
            name => Ok(self.begin(vec![name.to_owned()], attach.streams)),
        }
    }

    async fn forward(&self, _pod: &str, port: u16) -> Result<Box<dyn Stream>, Refusal> {
        if port == 9 {
            return Err(Refusal::new("connection refused"));
        }
        let (ours, theirs) = duplex(PIPE);
        let (one, gate) = (self.alive.one(), self.gate.0.subscribe());
        let poured = Arc::clone(&self.poured);
        tokio::spawn(async move {
            let _one = one;
            serve(port, theirs, gate, poured).await
        });
        Ok(Box::new(ours))
    }
}

async fn run(command: &[String], mut own: Own) -> io::Result<i32> {
    match command[0].as_str() {
        "cat" => copy(&mut own.stdin, &mut own.stdout).await.map(|_| 0),
        "say" => {
            own.stdout.write_all(command[1].as_bytes()).await?;
            own.stderr.write_all(command[2].as_bytes()).await?;
            Ok(command[3].parse().unwrap())
        }
        "sizes" => {
            while let Some(size) = own.sizes.recv().await {
                let text = format!("{}x{}\n", size.width, size.height);
                own.stdout.write_all(text.as_bytes()).await?;
                if size.width == 0 {
                    break;
                }
            }
            Ok(0)
        }
        "hang" => std::future::pending().await,
        // It ends, and has not taken what it was fed.
        "deaf" => {
            drop(own.stdin);
            own.gate.wait_for(|open| *open).await.unwrap();
            own.stdout.write_all(b"deaf").await?;
            Ok(0)
        }
        // Whether what is fed is the pattern, once the gate is open.
        "check" => {
            own.gate.wait_for(|open| *open).await.unwrap();
            let told = check(&mut own.stdin).await?;
            own.stdout.write_all(told.as_bytes()).await?;
            Ok(0)
        }
        "pour" => pour(&mut own.stdout, &own.poured).await.map(|()| 0),
        other => panic!("{other} is not made up"),
    }
}

async fn serve(
    port: u16,
    stream: DuplexStream,
    mut gate: watch::Receiver<bool>,
    poured: Arc<AtomicUsize>,
) -> io::Result<()> {
    let (mut from, mut to) = split(stream);
    match port {
        7 => copy(&mut from, &mut to).await.map(drop)?,
        // Says something, and that it has said all; then hears until the other has.
        80 => {
            to.write_all(b"hello").await?;
            to.shutdown().await?;
            copy(&mut from, &mut tokio::io::sink()).await?;
        }
        81 => {
            gate.wait_for(|open| *open).await.unwrap();
            let told = check(&mut from).await?;
            to.write_all(told.as_bytes()).await?;
        }
        82 => pour(&mut to, &poured).await?,
        _ => copy(&mut from, &mut tokio::io::sink()).await.map(drop)?,
    }
    to.shutdown().await
}

/// After so many bytes the pattern begins again: not where a piece of anybody's does.
const PERIOD: usize = 65_521;

/// What is sent and checked, over and over.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..PERIOD).map(|at| u8::try_from((at ^ (at >> 7)) & 0xff).unwrap()).collect()
});

/// So many bytes of the pattern, from this one on.
pub fn pattern(at: usize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let rest = &PATTERN[(at + bytes.len()) % PERIOD..];
        bytes.extend(&rest[..rest.len().min(length - bytes.len())]);
    }
    bytes
}

/// Reads to the end, and tells how much it was if each byte was right.
async fn check(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<String> {
    let (mut piece, mut at) = (vec![0; 10_000], 0);
    loop {
        match from.read(&mut piece).await? {
            0 => return Ok(format!("{at} good")),
            read if is_right(&piece[..read], at) => at += read,
            _ => return Ok(format!("bad after {at}")),
        }
    }
}

pub fn is_right(piece: &[u8], at: usize) -> bool {
    piece == pattern(at, piece.len())
}

async fn pour(
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    poured: &AtomicUsize,
) -> io::Result<()> {
    let mut at = 0;
    while at < MUCH {
        let piece = pattern(at, 8 << 10);
        to.write_all(&piece).await?;
        at += piece.len();
        poured.store(at, SeqCst);
    }
    to.shutdown().await
}
