//! A container's stdin, stdout and stderr: what it is given, what we keep, and how its output gets
//! into its log.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    bundle::Bundle,
    error::Error,
    log::{self, Lines, Log, Stream},
    source::Source,
};

/// How much is read at a time, in bytes: what a pipe holds.
const PIECE: usize = 64 * 1024;

/// The ends that the container gets.
pub struct Ends {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Ends {
    /// All of them `/dev/null`, which is also what a container with a terminal begins with.
    pub fn null() -> Result<Self, Error> {
        Ok(Self { stdin: null()?, stdout: null()?, stderr: null()? })
    }
}

/// A pipe whose one end a process of the container gets. It is made that process's own, so that
/// it may open `/dev/stdout`.
pub fn pipe(bundle: &Bundle) -> Result<(OwnedFd, OwnedFd), Error> {
    let ends = pipe_with(PipeFlags::CLOEXEC).map_err(Error::kernel("making a pipe"))?;
    let (uid, gid) = bundle.owner;
    rustix::fs::fchown(&ends.0, Some(uid), Some(gid))
        .map_err(Error::kernel("giving a pipe to the container's user"))?;
    Ok(ends)
}

pub fn null() -> Result<OwnedFd, Error> {
    let file = File::options().read(true).write(true).open("/dev/null");
    file.map(OwnedFd::from).map_err(|e| Error::io("opening", "/dev/null".as_ref(), e))
}

/// Output on its way into a log.
#[derive(Default)]
pub struct Pumps {
    running: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Pumps {
    /// Begins to write what is read from `from` to the log, or to drop it.
    pub fn start(
        &mut self,
        from: OwnedFd,
        stream: Stream,
        log: Option<Arc<Log>>,
    ) -> Result<(), Error> {
        let source = Source::new(from).map_err(Error::kernel("watching the output"))?;
        self.running.push(tokio::spawn(pump(source, stream, log, self.stop.subscribe())));
        Ok(())
    }

    /// Waits until all output is in the log.
    pub async fn drained(&mut self) {
        while let Some(pump) = self.running.last_mut() {
            let _ = pump.await;
            self.running.pop();
        }
    }

    /// Ends them, though somebody may still hold the other end. What has come is logged.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.drained().await;
    }
}

async fn pump(
    source: Source,
    stream: Stream,
    log: Option<Arc<Log>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut lines = Lines::new(stream);
    loop {
        let stopped = tokio::select! {
            ready = source.ready() => ready.is_err(),
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let read = |piece: &mut Vec<u8>| match stopped {
            false => source.read_ready(piece),
            true => source.read_left(piece),
        };
        let more = pass_on(read, &mut lines, log.as_deref());
        if stopped || !more {
            break;
        }
    }
    let mut out = Vec::new();
    lines.finish(&log::stamp(), &mut out);
    if let Some(log) = log {
        log.append(&out);
    }
}

/// Reads once and logs it. Says whether there may be more to come. The buffers live no longer than
/// that: see [`crate::start`] for where they come from.
fn pass_on(
    read: impl Fn(&mut Vec<u8>) -> std::io::Result<Option<usize>>,
    lines: &mut Lines,
    log: Option<&Log>,
) -> bool {
    let mut piece = Vec::with_capacity(PIECE);
    let read = read(&mut piece);
    if let (Ok(Some(1..)), Some(log)) = (&read, log) {
        let mut out = Vec::with_capacity(piece.len() + piece.len() / 2);
        lines.feed(&piece, &log::stamp(), &mut out);
        log.append(&out);
    }
    !matches!(read, Ok(Some(0)) | Err(_))
}

/// Sets the size of the terminal whose master this is.
pub fn resize(terminal: impl AsFd, width: u16, height: u16) -> Result<(), Error> {
    let size =
        rustix::termios::Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(Error::kernel("resizing the terminal"))
}
