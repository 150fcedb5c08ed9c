//! `podbay logs`: reads the log file that the runtime names, and follows it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri_proto::v1;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use tonic::Code;

use crate::args::Logs;
use crate::error::Error;
use crate::find;
use crate::link::{LOOK, Link, answer, within};
use crate::log::{Reader, Stream, shown};

/// How often the container is asked whether it still runs, while it writes nothing.
const ASK: Duration = Duration::from_secs(1);

pub async fn run(link: &Link, logs: &Logs, out: &mut dyn Write) -> Result<(), Error> {
    let container = find::container(link, &logs.container).await?;
    let status = status(link, &container.id).await?;
    let path = match status.as_ref().map(|status| &*status.log_path) {
        None | Some("") => return Err(Error::NoLog(logs.container.clone())),
        Some(path) => PathBuf::from(path),
    };
    let failed = |source| Error::File { doing: "reading", path: path.clone(), source };
    let mut reader = Reader::open(&path).map_err(failed)?;
    let mut print = |line: &[u8]| print(out, line, logs.timestamps);
    if let Some(count) = logs.tail {
        reader.last(count).map_err(failed)?.iter().try_for_each(|line| print(line))?;
    }
    if !logs.follow {
        return drain(&mut reader, &path, &mut print);
    }
    follow(link, &container.id, reader, &path, &mut print).await
}

fn drain(
    reader: &mut Reader,
    path: &Path,
    print: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::File { doing: "reading", path: path.to_owned(), source };
    while let Some(line) = reader.next().map_err(failed)? {
        print(&line)?;
    }
    Ok(())
}

/// Until the container has ended and its log is read. That it has ended is asked before the log is
/// read, so that its last words are not missed.
async fn follow(
    link: &Link,
    container: &str,
    mut reader: Reader,
    path: &Path,
    print: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut watch = Watch::on(path)?;
    loop {
        let running = i32::from(v1::ContainerState::ContainerRunning);
        let runs = status(link, container).await?.is_some_and(|status| status.state == running);
        drain(&mut reader, path, print)?;
        if !runs {
            return Ok(());
        }
        watch = watch.changed(ASK).await?;
    }
}

/// None when there is no such container any more.
async fn status(link: &Link, id: &str) -> Result<Option<v1::ContainerStatus>, Error> {
    let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let status = link.runtime().container_status(within(LOOK, request)).await;
    if status.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Ok(None);
    }
    answer("ContainerStatus", status).map(|answer| answer.status)
}

fn print(out: &mut dyn Write, line: &[u8], timestamps: bool) -> Result<(), Error> {
    let (stream, bytes) = shown(line, timestamps);
    let written = match stream {
        Stream::Stdout => out.write_all(&bytes),
        // In the order in which the container wrote, where both go to one terminal.
        Stream::Stderr => out.flush().and_then(|()| io::stderr().write_all(&bytes)),
    };
    written.and_then(|()| out.flush()).map_err(Error::Output)
}

/// Waits for something to happen in the directory of a file: writing, and rotation too.
pub struct Watch {
    inotify: rustix::fd::OwnedFd,
    path: PathBuf,
}

impl Watch {
    /// # Errors
    /// The directory is not there, or the kernel has no watch left for us.
    pub fn on(file: &Path) -> Result<Watch, Error> {
        let path = file.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let watch = || {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let inotify = inotify::init(flags)?;
            let what = inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&inotify, &path, what).map(|_| inotify)
        };
        match watch() {
            Ok(inotify) => Ok(Watch { inotify, path }),
            Err(errno) => Err(Error::File { doing: "watching", path, source: errno.into() }),
        }
    }

    /// Gives itself back when something has happened, or the time is over.
    pub async fn changed(self, limit: Duration) -> Result<Watch, Error> {
        tokio::task::spawn_blocking(move || self.wait(limit).map(|()| self))
            .await
            .expect("waiting does not panic")
    }

    fn wait(&self, limit: Duration) -> Result<(), Error> {
        let limit = Timespec::try_from(limit).expect("the limit is a few seconds");
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        let outcome = match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => self.forget(),
            Err(errno) => Err(errno),
        };
        outcome.map_err(|errno| Error::File {
            doing: "watching",
            path: self.path.clone(),
            source: errno.into(),
        })
    }

    /// Reads what has happened; which it was does not matter.
    fn forget(&self) -> Result<(), Errno> {
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.inotify, &mut events) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}
