//! The CRI log: how a stream of bytes becomes lines, and the file that they go to. Who reads the
//! stream, and when it ends, is not known here.
//!
//! A line is `<time> <stdout|stderr> <P|F> <bytes>\n`. One of more than [`LONGEST`] bytes is cut
//! into pieces, all but the last of which are tagged P (partial). What is left without a newline
//! when a stream ends is P too: that is how containerd has it, and readers add no newline to it.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::fs::{Mode, OFlags};

use crate::{clock, error::Error};

/// The most bytes of output in one line of the log.
pub const LONGEST: usize = 16 * 1024;

/// Which of a container's streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Stdout => b"stdout",
            Self::Stderr => b"stderr",
        }
    }
}

/// A stream on its way into a log: it keeps the line that has not ended yet.
pub struct Lines {
    stream: Stream,
    rest: Vec<u8>,
}

impl Lines {
    pub fn new(stream: Stream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Appends to `out` the lines that end in `bytes`, stamped with `time`. Keeps what is left.
    pub fn feed(&mut self, mut bytes: &[u8], time: &[u8], out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.take(&bytes[..end], time, out);
            self.put(b'F', time, out);
            bytes = &bytes[end + 1..];
        }
        self.take(bytes, time, out);
    }

    /// Appends to `out` what is left, at the end of the stream.
    pub fn finish(&mut self, time: &[u8], out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.put(b'P', time, out);
        }
        self.rest = Vec::new();
    }

    /// Adds to the line that has not ended, and puts out whatever is too long for one piece.
    fn take(&mut self, mut bytes: &[u8], time: &[u8], out: &mut Vec<u8>) {
        while self.rest.len() + bytes.len() > LONGEST {
            let (piece, more) = bytes.split_at(LONGEST - self.rest.len());
            self.rest.extend_from_slice(piece);
            self.put(b'P', time, out);
            bytes = more;
        }
        self.rest.extend_from_slice(bytes);
    }

    fn put(&mut self, tag: u8, time: &[u8], out: &mut Vec<u8>) {
        for part in [time, b" ", self.stream.name(), b" ", &[tag], b" ", &self.rest, b"\n"] {
            out.extend_from_slice(part);
        }
        self.rest.clear();
    }
}

/// A log file. Both streams of a container write to it, whole lines at a time.
pub struct Log {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// Bytes of lines that could not be written, since the last time that some could.
    dropped: u64,
}

impl Log {
    /// Opens the file to append to, and makes it if it is not there.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let file = open(&path)?;
        Ok(Self { path, state: Mutex::new(State { file, dropped: 0 }) })
    }

    /// Opens the path anew. On an error the file that was open before stays in use.
    pub fn reopen(&self) -> Result<(), Error> {
        let file = open(&self.path)?;
        self.lock().file = file;
        Ok(())
    }

    /// Appends these lines. What cannot be written, as on a full disk, is dropped: a container
    /// must not wait for a disk. A line is in the file whole or not at all.
    pub fn append(&self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut state = self.lock();
        let State { file, dropped } = &mut *state;
        match write_whole(file, lines) {
            Ok(()) if *dropped > 0 => {
                eprintln!("{}: {dropped} bytes of the log were dropped", self.path.display());
                *dropped = 0;
            }
            Ok(()) => {}
            Err((lost, error)) => {
                if *dropped == 0 {
                    eprintln!("{}: cannot write to the log: {error}", self.path.display());
                }
                *dropped += lost;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the log")
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    rustix::fs::open(path, flags, mode)
        .map(File::from)
        .map_err(|e| Error::io("opening the log", path, e.into()))
}

/// Writes all of it. On an error gives how many bytes are lost, after taking back the part of a
/// line that may have been written.
fn write_whole(file: &mut File, lines: &[u8]) -> Result<(), (u64, io::Error)> {
    let mut left = lines;
    let error = loop {
        match file.write(left) {
            Ok(0) => break io::Error::from(io::ErrorKind::WriteZero),
            Ok(n) if n == left.len() => return Ok(()),
            Ok(n) => left = &left[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break e,
        }
    };
    let written = &lines[..lines.len() - left.len()];
    let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = written.len() - whole;
    if torn > 0 {
        // If even this fails there is nothing better to do; the line stays torn.
        let _ = file.metadata().and_then(|m| file.set_len(m.size().saturating_sub(torn as u64)));
    }
    Err(((lines.len() - whole) as u64, error))
}

/// The present moment as a log line has it.
pub fn stamp() -> [u8; clock::STAMP] {
    clock::stamp(names::now())
}

#[cfg(test)]
mod tests;
