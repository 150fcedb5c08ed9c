//! What the streaming server streams to and from: commands, containers and ports of pods.

use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use pods::Pods;
use shim_api::{AttachStart, ExecStart};
use streaming::{Attach, Exec, Process, Refusal, Size, Stream, Target, Terminal};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long an output may be silent after its command has ended: something that the command has left
/// behind may hold it open for ever.
const SILENCE: Duration = Duration::from_secs(1);

/// Streams to and from pods.
pub struct Streams {
    pods: Pods,
}

impl Streams {
    pub fn new(pods: Pods) -> Self {
        Self { pods }
    }
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

#[async_trait]
impl Target for Streams {
    async fn exec(&self, exec: &Exec) -> Result<Process, Refusal> {
        let asked = exec.streams;
        let start = ExecStart {
            args: exec.command.clone(),
            terminal: asked.tty.then(shim_api::Size::default),
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
        };
        let begun = self.pods.exec(&exec.container, start).await;
        let mut running = begun.map_err(|error| Refusal::of(&error))?;
        let streams = std::mem::take(&mut running.streams);
        let running = Arc::new(running);
        let ended = CancellationToken::new();
        let output = |fd: Option<OwnedFd>| {
            let reader =
                |fd| Ok::<_, Refusal>(Box::new(Output::new(stream(fd)?, &ended)) as Reader);
            fd.map(reader).transpose()
        };
        let (stdin, stdout) = match streams.terminal {
            Some(terminal) => (Some(copy(&terminal)?), Some(terminal)),
            None => (streams.stdin, streams.stdout),
        };
        let (stdout, stderr) = (output(stdout)?, output(streams.stderr)?);
        let terminal = asked.tty.then(|| Box::new(OfCommand(running.clone())) as Box<dyn Terminal>);
        let end = async move {
            let code = running.wait(None).await.map_err(|error| Refusal::of(&error));
            ended.cancel();
            code
        };
        let stdin = stdin.filter(|_| asked.stdin).map(writer).transpose()?;
        Ok(Process { stdin, stdout, stderr, terminal, end: Box::pin(end) })
    }

    async fn attach(&self, attach: &Attach) -> Result<Process, Refusal> {
        let asked = attach.streams;
        let start = AttachStart { stdin: asked.stdin, stdout: asked.stdout, stderr: asked.stderr };
        let streams = self.pods.attach(&attach.container, start).await;
        let streams = streams.map_err(|error| Refusal::of(&error))?;
        let reader = |fd| Ok::<_, Refusal>(Box::new(stream(fd)?) as Reader);
        let (pods, container) = (self.pods.clone(), attach.container.clone());
        let resized = OfContainer { pods: pods.clone(), container: container.clone() };
        let end = async move {
            pods.ended(&container).await.map_err(|error| Refusal::of(&error))?;
            // How a container has ended is told by its status, and not to those who attach.
            Ok(0)
        };
        Ok(Process {
            stdin: streams.stdin.map(writer).transpose()?,
            stdout: streams.stdout.map(reader).transpose()?,
            stderr: streams.stderr.map(reader).transpose()?,
            terminal: asked.tty.then(|| Box::new(resized) as Box<dyn Terminal>),
            end: Box::pin(end),
        })
    }

    async fn forward(&self, pod: &str, port: u16) -> Result<Box<dyn Stream>, Refusal> {
        let dialled = self.pods.dial(pod, port).await;
        Ok(Box::new(dialled.map_err(|error| Refusal::of(&error))?))
    }
}

fn stream(fd: OwnedFd) -> Result<sys::stream::Stream, Refusal> {
    sys::stream::Stream::new(fd).map_err(|error| Refusal::of(&error))
}

fn writer(fd: OwnedFd) -> Result<Writer, Refusal> {
    Ok(Box::new(stream(fd)?))
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Refusal> {
    fd.try_clone().map_err(|error| Refusal::of(&error))
}

/// The terminal of a command.
struct OfCommand(Arc<shim_api::client::Exec>);

#[async_trait]
impl Terminal for OfCommand {
    async fn resize(&mut self, size: Size) -> Result<(), Refusal> {
        let size = shim_api::Size { width: size.width, height: size.height };
        self.0.resize(size).map_err(|error| Refusal::of(&error))
    }
}

/// The terminal of a container.
struct OfContainer {
    pods: Pods,
    container: String,
}

#[async_trait]
impl Terminal for OfContainer {
    async fn resize(&mut self, size: Size) -> Result<(), Refusal> {
        let size = shim_api::Size { width: size.width, height: size.height };
        self.pods.resize(&self.container, size).await.map_err(|error| Refusal::of(&error))
    }
}

/// The output of a command: it ends when it is at its end, or silent after the command has ended.
struct Output {
    from: sys::stream::Stream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Output {
    fn new(from: sys::stream::Stream, ended: &CancellationToken) -> Self {
        Self { from, ended: Box::pin(ended.clone().cancelled_owned()), silence: None }
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = Pin::new(&mut this.from).poll_read(cx, buf) {
            this.silence = None;
            return Poll::Ready(read);
        }
        if this.silence.is_none() {
            ready!(this.ended.as_mut().poll(cx));
            this.ended = Box::pin(ended_already());
        }
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
        silence.as_mut().poll(cx).map(Ok)
    }
}

/// A future that was ready may not be polled again, so that another takes its place.
fn ended_already() -> WaitForCancellationFutureOwned {
    let ended = CancellationToken::new();
    ended.cancel();
    ended.cancelled_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_output_that_something_holds_open_ends_after_the_silence() {
        let (from, to) = rustix::pipe::pipe().unwrap();
        let ended = CancellationToken::new();
        let mut output = Output::new(stream(from).unwrap(), &ended);
        rustix::io::write(&to, b"before").unwrap();
        let mut got = [0; 6];
        output.read_exact(&mut got).await.unwrap();
        ended.cancel();
        rustix::io::write(&to, b"after").unwrap();
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&got, &*rest), (b"before", &b"after"[..]));
        drop(to);
    }
}
