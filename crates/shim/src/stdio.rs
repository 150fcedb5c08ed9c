//! A container's stdin, stdout and stderr: what it is given, what we keep, and how its output gets
//! into its log and to its readers.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::pipe::{PipeFlags, pipe_with};
use shim_api::Streams;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    bundle::Bundle,
    error::Error,
    fan::{Fan, Readers},
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

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Wanted {
    /// Pipes for a command's streams, and null for the others: the command's ends, and the client's.
    pub fn pipes(self, bundle: &Bundle) -> Result<(Ends, Streams), Error> {
        let (mut ends, mut streams) = (Ends::null()?, Streams::default());
        if self.stdin {
            let (from, to) = pipe(bundle)?;
            (ends.stdin, streams.stdin) = (from, Some(to));
        }
        let output = |end: &mut OwnedFd| {
            let (from, to) = pipe(bundle)?;
            *end = to;
            Ok::<_, Error>(from)
        };
        streams.stdout = self.stdout.then(|| output(&mut ends.stdout)).transpose()?;
        streams.stderr = self.stderr.then(|| output(&mut ends.stderr)).transpose()?;
        Ok((ends, streams))
    }
}

/// Output on its way into a log, and to whoever else listens.
#[derive(Default)]
pub struct Pumps {
    running: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Pumps {
    /// Begins to write what is read from `from` to the log, if there is one, and to the readers.
    pub fn start(
        &mut self,
        from: OwnedFd,
        stream: Stream,
        log: Option<Arc<Log>>,
        fan: Arc<Fan>,
    ) -> Result<(), Error> {
        let source = Source::new(from).map_err(Error::kernel("watching the output"))?;
        let (lines, readers) = (Lines::new(stream), Readers::default());
        let pump = Pump { source, lines, log, fan, readers };
        self.running.push(tokio::spawn(pump.run(self.stop.subscribe())));
        Ok(())
    }

    /// Waits until all output is where it shall be.
    pub async fn drained(&mut self) {
        while let Some(pump) = self.running.last_mut() {
            let _ = pump.await;
            self.running.pop();
        }
    }

    /// Ends them, though somebody may still hold the other end, or be too slow. What has come is
    /// logged.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.drained().await;
    }
}

/// One stream of a container's.
struct Pump {
    source: Source,
    lines: Lines,
    log: Option<Arc<Log>>,
    fan: Arc<Fan>,
    readers: Readers,
}

impl Pump {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut last = Vec::new();
        loop {
            self.readers.admit(&self.fan, 0);
            let ready = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    self.drain(&mut last);
                    break;
                }
                () = self.fan.comers() => continue,
                () = self.readers.one_has_gone() => continue,
                ready = self.source.ready() => ready,
            };
            // Who came before we read hears what we read.
            self.readers.admit(&self.fan, 0);
            let Some(piece) = ready.ok().and_then(|()| self.read()) else { break };
            if self.readers.is_empty() || piece.is_empty() {
                continue;
            }
            let given = tokio::select! {
                biased;
                () = self.readers.give(&piece) => true,
                _ = stop.wait_for(|stop| *stop) => false,
            };
            if !given {
                last = piece;
                self.drain(&mut last);
                break;
            }
        }
        self.finish(&last);
    }

    /// Reads once and logs it. `None` at the end, and nothing if there was nothing after all. The
    /// buffers live no longer than they must: see [`crate::start`] for where they come from.
    fn read(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE);
        match self.source.read_ready(&mut piece) {
            Ok(Some(1..)) => self.log(&piece),
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => return None,
        }
        Some(piece)
    }

    /// Reads what there is, and does not wait for more. It goes to the readers after what they
    /// shall have anyway.
    fn drain(&mut self, last: &mut Vec<u8>) {
        self.readers.admit(&self.fan, last.len());
        let mut piece = Vec::with_capacity(PIECE);
        // Somebody may write faster than we read, for ever.
        let mut left = 2 * PIECE;
        while let Ok(Some(n @ 1..)) = self.source.read_left(&mut piece) {
            self.log(&piece);
            if !self.readers.is_empty() {
                last.extend_from_slice(&piece);
            }
            left = left.saturating_sub(n);
            if left == 0 {
                break;
            }
            piece.clear();
        }
    }

    fn log(&mut self, piece: &[u8]) {
        if let Some(log) = &self.log {
            let mut out = Vec::with_capacity(piece.len() + piece.len() / 2);
            self.lines.feed(piece, &log::stamp(), &mut out);
            log.append(&out);
        }
    }

    fn finish(mut self, last: &[u8]) {
        if let Some(log) = &self.log {
            let mut out = Vec::new();
            self.lines.finish(&log::stamp(), &mut out);
            log.append(&out);
        }
        self.readers.part(last);
        self.fan.close();
    }
}

/// Sets the size of the terminal whose master this is.
pub fn resize(terminal: impl AsFd, width: u16, height: u16) -> Result<(), Error> {
    let size =
        rustix::termios::Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(Error::kernel("resizing the terminal"))
}
