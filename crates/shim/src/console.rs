//! The socket over which a runtime hands us the master of a terminal, as runc and its like do it;
//! and how the runtime built in does.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::time::timeout;

use crate::{error::Error, source::Source};

/// The longest path that fits in the address of a unix socket, in bytes.
const LONGEST: usize = 107;

/// A listening console socket. Its file goes when it is dropped.
pub struct Console {
    path: PathBuf,
    listener: Source,
}

impl Console {
    /// Listens at this path, which must not exist.
    pub fn listen(path: PathBuf) -> Result<Self, Error> {
        let broken = |e| Error::io("listening at", &path, e);
        let listener = bind(&path).map_err(broken)?;
        let listener = Source::new(listener.into()).map_err(broken)?;
        Ok(Self { path, listener })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master that the runtime has sent, or is about to send.
    pub async fn receive(&self, within: Duration) -> Result<OwnedFd, Error> {
        let doing = "receiving the terminal from the runtime";
        let receive = async {
            let peer = self.listener.when_ready(|fd| Ok(rustix::net::accept(fd)?)).await?;
            let peer = Source::new(peer)?;
            peer.when_ready(receive_fd).await
        };
        timeout(within, receive)
            .await
            .map_err(|_| Error::Late { doing, within })?
            .map_err(Error::kernel(doing))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It is in the pod's directory, and goes with that at the latest.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds, also where the path is too long for the system call.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    short(path, |path| UnixListener::bind(path))
}

/// Connects, also where the path is too long for the system call.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    short(path, |path| UnixStream::connect(path))
}

/// By `self`, for a process may have another number in the pid namespace that it has joined.
fn short<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    act(&Reachable::by("self", path)?.path)
}

/// A path to a socket that fits in an address, by way of its directory's descriptor if it must.
pub struct Reachable {
    pub path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Reachable {
    /// One that is good for other programs, for as long as this lives.
    pub fn new(path: &Path) -> io::Result<Self> {
        Self::by(&std::process::id().to_string(), path)
    }

    fn by(process: &str, path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(parent, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/{process}/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Sends the master, with a name, which is there only because something must be.
pub fn send(console: &UnixStream, master: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [master];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = [IoSlice::new(b"/dev/pts/ptmx")];
    sendmsg(console, &name, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(&mut name)];
    recvmsg(socket, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the runtime sent no descriptor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_reached_whose_path_is_too_long_for_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(LONGEST));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("console");
        let _listener = bind(&path).unwrap();
        connect(&path).unwrap();
        let reachable = Reachable::new(&path).unwrap();
        UnixStream::connect(&reachable.path).unwrap();
        assert!(reachable.path.as_os_str().len() <= LONGEST, "{:?}", reachable.path);
    }
}
