//! Commands whose streams are ours, and attaching to a container's own. The descriptors come from
//! the shim; what flows through them does not.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use protobuf::MessageField;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::UnixStream,
    sync::OnceCell,
    time::timeout,
};
use ttrpc::r#async::Client;

use super::{Error, ExecGuard, Shim, connection::Repeat, exec_id, limit};
use crate::{
    Address,
    address::unix,
    proto::{supervisor_ttrpc::SupervisorClient, task_ttrpc::TaskClient},
    streams::{Streams, TOKEN},
    supervisor, task,
};

/// How long a command may take to begin: longer than the shim lets it.
const BEGINNING: Duration = Duration::from_secs(35);

/// How long the shim may take to find, and to hand over, what it has.
const HANDING_OVER: Duration = Duration::from_secs(10);

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// A command to begin in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecStart {
    pub args: Vec<String>,
    /// With one, the terminal is all of its stdin, stdout and stderr.
    pub terminal: Option<Size>,
    /// Which of them are wanted, without a terminal; the others are `/dev/null`.
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Which of a container's streams are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachStart {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A command that was begun. When this is dropped, or the process ends, the command is killed,
/// with what it has started, unless it has ended by itself.
#[derive(Debug)]
pub struct Exec {
    /// To be taken. They are independent of this: what is closed is closed for the command too, but
    /// for a terminal, which stays open until this is dropped.
    pub streams: Streams,
    address: Address,
    terminal: Option<OwnedFd>,
    /// The shim kills the command when it is closed, and says the exit code there.
    line: UnixStream,
    ended: OnceCell<i32>,
}

impl Shim {
    /// Begins a command in a running container.
    ///
    /// # Errors
    /// Of class Unimplemented from a shim of another make, FailedPrecondition if there is no such
    /// program or the container does not run, NotFound if there is no such container.
    pub async fn exec(&self, id: &str, start: ExecStart) -> Result<Exec, Error> {
        self.is_here()?;
        let request = exec_request(id, start);
        let mut guard = ExecGuard::new(self, id, &request.exec_id);
        let call = |line: Client| {
            let request = &request;
            async move { SupervisorClient::new(line).exec(limit(BEGINNING), request).await }
        };
        let reply = self.connection.call("Exec", BEGINNING, Repeat::Never, call).await;
        guard.ended = matches!(reply, Err(Error::Refused { .. }));
        let (streams, line) = self.take(reply?).await?;
        let terminal = streams.terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let terminal = terminal.map_err(self.failed("keeping the terminal"))?;
        // From here on the line is the guard.
        guard.ended = true;
        let address = self.address().clone();
        Ok(Exec { streams, address, terminal, line, ended: OnceCell::new() })
    }

    /// Our ends of a container's own streams: it is read from what the container writes from now
    /// on, until it has ended. A reader that is slow makes the container wait. With a terminal,
    /// stdout is all of its output.
    ///
    /// What is asked for and is not there is not given: stdin that is not kept open, or, if it is
    /// for one client only, was given to another.
    ///
    /// # Errors
    /// Of class Unimplemented from a shim of another make, FailedPrecondition if the container has
    /// ended, NotFound if there is none.
    pub async fn attach(&self, id: &str, start: AttachStart) -> Result<Streams, Error> {
        self.is_here()?;
        let AttachStart { stdin, stdout, stderr } = start;
        let id = id.to_owned();
        let request = supervisor::AttachRequest { id, stdin, stdout, stderr, ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { SupervisorClient::new(line).attach(limit(HANDING_OVER), request).await }
        };
        let reply = self.connection.call("Attach", HANDING_OVER, Repeat::Harmless, call).await?;
        Ok(self.take(reply).await?.0)
    }

    /// Sets the size of a container's own terminal.
    pub async fn resize(&self, id: &str, size: Size, within: Duration) -> Result<(), Error> {
        let Size { width, height } = size;
        let (width, height) = (width.into(), height.into());
        let id = id.to_owned();
        let request = task::ResizePtyRequest { id, width, height, ..Default::default() };
        let call = |line: Client| {
            let request = &request;
            async move { TaskClient::new(line).resize_pty(limit(within), request).await }
        };
        self.connection.call("ResizePty", within, Repeat::Harmless, call).await.map(drop)
    }

    fn is_here(&self) -> Result<(), Error> {
        match self.address() {
            Address::Unix(_) => Ok(()),
            address => Err(Error::Elsewhere { address: address.clone() }),
        }
    }

    /// Takes what the shim holds out, and gives the connection by which it came.
    async fn take(&self, out: supervisor::HandOver) -> Result<(Streams, UnixStream), Error> {
        if out.token.len() != TOKEN {
            let why = format!("{:?} is no token", out.token);
            return Err(Error::Nonsense { call: "Exec or Attach", why });
        }
        let take = async {
            let mut line = unix(out.socket.as_ref()).await?;
            line.write_all(out.token.as_bytes()).await?;
            let receive = || Streams::receive(line.as_fd());
            let streams = line.async_io(Interest::READABLE, receive).await?;
            Ok((streams, line))
        };
        timeout(HANDING_OVER, take)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(self.failed("taking the streams"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let address = self.address().clone();
        move |source| Error::Streams { doing, address, source }
    }
}

impl Exec {
    /// Waits until the command has ended, and gives its exit status, or 128 and the signal. There
    /// may still be output to read; and the streams may be held open by what it has left behind.
    ///
    /// Waiting again is allowed, and so is dropping this future.
    pub async fn wait(&self, within: Option<Duration>) -> Result<i32, Error> {
        let Some(within) = within else { return self.end().await };
        timeout(within, self.end()).await.unwrap_or_else(|_| {
            Err(Error::Late { address: self.address.clone(), call: "Exec", within })
        })
    }

    async fn end(&self) -> Result<i32, Error> {
        self.ended.get_or_try_init(|| self.hear_the_end()).await.copied()
    }

    async fn hear_the_end(&self) -> Result<i32, Error> {
        let mut code = [0; 4];
        let read = || Ok(rustix::io::read(&self.line, &mut code)?);
        match self.line.async_io(Interest::READABLE, read).await {
            Ok(4) => Ok(i32::from_be_bytes(code)),
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Err(self.broken(io::ErrorKind::InvalidData.into())),
            Err(source) => Err(self.broken(source)),
        }
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Streams { doing: "waiting for a command", address: self.address.clone(), source }
    }

    /// Sets the size of the command's terminal.
    pub fn resize(&self, size: Size) -> Result<(), Error> {
        let none = Error::Untellable { what: "a size", why: "the command has no terminal" };
        let terminal = self.terminal.as_ref().ok_or(none)?;
        let Size { width, height } = size;
        let size = Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(terminal, size).map_err(|source| Error::Streams {
            doing: "resizing a terminal",
            address: self.address.clone(),
            source: source.into(),
        })
    }
}

fn exec_request(id: &str, start: ExecStart) -> supervisor::ExecRequest {
    let ExecStart { args, terminal, stdin, stdout, stderr } = start;
    let size = |Size { width, height }| supervisor::TerminalSize {
        width: width.into(),
        height: height.into(),
        ..Default::default()
    };
    supervisor::ExecRequest {
        id: id.to_owned(),
        exec_id: exec_id(),
        args,
        terminal: MessageField::from_option(terminal.map(size)),
        stdin,
        stdout,
        stderr,
        ..Default::default()
    }
}
