//! ExecSync: a command run in a container to its end, its output passed on while it runs, and its
//! processes killed when its time is up or nobody waits for it any more. [`streamed`] is the other
//! way to run one.

pub mod streamed;

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use async_trait::async_trait;
use shim_api::{EXEC_OUTPUT_LIMIT, supervisor::ExecSyncPiece};
use sys::cgroup::Cgroup;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::{error::Error, processes, reaper::Ended, source::Source};

/// How long output is waited for after the command has ended, while a child that it left behind
/// holds the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a killed command may take to be gone.
const DEATH: Duration = Duration::from_millis(800);

/// As good as never.
const FAR: Duration = Duration::from_secs(u32::MAX as u64);

/// How much output is sent at a time, in bytes; and read, too.
const PIECE: usize = 256 * 1024;
const READ: usize = 16 * 1024;

/// Whoever gets the pieces of output.
#[async_trait]
pub trait Listener: Send + Sync {
    /// An error if nobody listens any more.
    async fn hear(&self, piece: ExecSyncPiece) -> Result<(), Error>;
}

/// A command that runs.
pub struct Command {
    /// It leads a session.
    pid: u32,
    cgroup: Option<Cgroup>,
    ended: oneshot::Receiver<Ended>,
}

impl Command {
    pub fn new(pid: u32, cgroup: Option<Cgroup>, ended: oneshot::Receiver<Ended>) -> Self {
        Self { pid, cgroup, ended }
    }

    /// Waits for its end. `None` if that was told already.
    async fn ended(&mut self) -> Option<Ended> {
        if self.ended.is_terminated() { None } else { (&mut self.ended).await.ok() }
    }

    /// Kills it, with what it has started, unless it has ended. `None` if its end was told already,
    /// or is not seen soon.
    pub async fn kill(&mut self) -> Option<Ended> {
        // Only what has not been reaped may be killed by its pid; the receiver knows.
        if self.ended.is_terminated() {
            return None;
        }
        if let Ok(ended) = self.ended.try_recv() {
            return Some(ended);
        }
        processes::kill_tree(self.pid);
        if let Some(cgroup) = &self.cgroup {
            processes::kill_session(cgroup, self.pid);
        }
        timeout(DEATH, &mut self.ended).await.ok()?.ok()
    }
}

/// How long it may take, how much of its output is wanted, and what ends it early.
pub struct Terms {
    /// Since it was asked for.
    timeout: Option<Duration>,
    since: Instant,
    /// Of each of stdout and stderr, in bytes.
    pub limit: usize,
    pub kill: Arc<Notify>,
}

impl Terms {
    pub fn new(timeout: i64, limit: u64) -> Self {
        let timeout = u64::try_from(timeout).unwrap_or_default();
        let limit = usize::try_from(limit).unwrap_or(EXEC_OUTPUT_LIMIT);
        let limit = if limit == 0 { EXEC_OUTPUT_LIMIT } else { limit.min(EXEC_OUTPUT_LIMIT) };
        let timeout = (timeout > 0).then(|| Duration::from_nanos(timeout));
        Self { timeout, since: Instant::now(), limit, kill: Arc::new(Notify::new()) }
    }

    /// How much of the time is left, but no more than this.
    pub fn left(&self, most: Duration) -> Duration {
        self.timeout.map_or(most, |timeout| timeout.saturating_sub(self.since.elapsed()).min(most))
    }

    fn deadline(&self) -> Instant {
        self.since + self.timeout.unwrap_or(FAR)
    }

    fn late(&self) -> Error {
        Error::Late { doing: "the command", within: self.timeout.unwrap_or(FAR) }
    }
}

/// One of the command's streams: what is to be sent, and how much more is wanted.
struct Stream {
    source: Source,
    open: bool,
    wanted: usize,
    held: Vec<u8>,
}

impl Stream {
    fn new(fd: OwnedFd, wanted: usize) -> Result<Self, Error> {
        let source = Source::new(fd).map_err(Error::kernel("watching the command's output"))?;
        Ok(Self { source, open: true, wanted, held: Vec::new() })
    }

    /// Reads once. Beyond what is wanted, output is read and dropped.
    async fn read(&mut self) {
        let mut piece = [0; READ];
        match self.source.read(&mut piece).await {
            Ok(n @ 1..) => {
                let kept = n.min(self.wanted);
                self.wanted -= kept;
                self.held.extend_from_slice(&piece[..kept]);
            }
            Ok(0) | Err(_) => self.open = false,
        }
    }
}

/// Follows the command, whose output comes from these pipes, to its end. Whatever happens, it does
/// not run any more when this returns.
pub async fn follow(
    mut command: Command,
    [stdout, stderr]: [OwnedFd; 2],
    terms: &Terms,
    listener: &dyn Listener,
) -> Result<(), Error> {
    let result = async {
        let stdout = Stream::new(stdout, terms.limit)?;
        let stderr = Stream::new(stderr, terms.limit)?;
        pass_on(&mut command, [stdout, stderr], terms, listener).await
    };
    let result = result.await;
    if result.is_err() {
        command.kill().await;
    }
    result
}

async fn pass_on(
    command: &mut Command,
    [mut out, mut err]: [Stream; 2],
    terms: &Terms,
    listener: &dyn Listener,
) -> Result<(), Error> {
    let mut deadline = terms.deadline();
    let mut code = None;
    while code.is_none() || out.open || err.open {
        tokio::select! {
            biased;
            end = command.ended(), if code.is_none() => {
                code = Some(end.map_or(-1, |end| end.code));
                deadline = Instant::now() + DRAIN;
            }
            () = terms.kill.notified(), if code.is_none() => return Err(Error::Abandoned),
            () = sleep_until(deadline) => match code {
                Some(_) => break,
                None => return Err(terms.late()),
            },
            () = out.read(), if out.open => {}
            () = err.read(), if err.open => {}
        }
        if out.held.len() + err.held.len() >= PIECE {
            let hear = listener.hear(piece(&mut out, &mut err));
            tokio::select! {
                heard = hear => heard?,
                () = terms.kill.notified() => return Err(Error::Abandoned),
                () = sleep_until(deadline), if code.is_none() => return Err(terms.late()),
            }
        }
    }
    let last =
        ExecSyncPiece { ended: true, exit_code: code.unwrap_or(-1), ..piece(&mut out, &mut err) };
    listener.hear(last).await
}

fn piece(out: &mut Stream, err: &mut Stream) -> ExecSyncPiece {
    let (stdout, stderr) = (std::mem::take(&mut out.held), std::mem::take(&mut err.held));
    ExecSyncPiece { stdout, stderr, ..Default::default() }
}
