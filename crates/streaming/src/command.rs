//! A command's streams, between a client and whoever runs it. By what the client is connected is not
//! known here.

use std::{convert::Infallible, future::pending, io};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    join, select,
};
use tracing::debug;

use crate::{
    Ask, Process, Refusal, Target, Terminal,
    agree::Dialect,
    lane::{Listener, Speaker},
    sizes::Sizes,
    status::Status,
};

/// How much is taken at a time.
pub(crate) const PIECE: usize = 16 << 10;

/// The client's ends of a command's streams.
pub(crate) struct Lanes {
    pub(crate) stdin: Option<Listener>,
    pub(crate) stdout: Option<Speaker>,
    pub(crate) stderr: Option<Speaker>,
    pub(crate) error: Speaker,
    pub(crate) sizes: Option<Listener>,
    /// The other ends of those that only the client speaks on, so that they stay open to the end.
    pub(crate) kept: Vec<Speaker>,
}

/// Runs what is asked for, and tells the client its end, last of all.
pub(crate) async fn run(target: &dyn Target, ask: &Ask, dialect: Dialect, lanes: Lanes) {
    let Lanes { stdin, stdout, stderr, mut error, sizes, kept: _kept } = lanes;
    let (begun, doing) = match ask {
        Ask::Exec(exec) => (target.exec(exec).await, "error executing command in container"),
        Ask::Attach(attach) => (target.attach(attach).await, "error attaching to container"),
        Ask::PortForward(_) => return,
    };
    let ended = match begun {
        Ok(process) => stream(process, stdin, stdout, stderr, sizes).await,
        Err(refusal) => Err(refusal),
    };
    let status = match ended {
        // The exit code of a container is not for whoever was attached to it.
        Ok(0) => Status::Success,
        Ok(_) if matches!(ask, Ask::Attach(_)) => Status::Success,
        Ok(code) => Status::Exit(code),
        Err(refusal) => Status::Failed(doing, refusal),
    };
    let told = status.told(dialect);
    if error.write_all(&told).await.is_ok() {
        let _ = error.shutdown().await;
    }
}

async fn stream(
    process: Process,
    stdin: Option<Listener>,
    stdout: Option<Speaker>,
    stderr: Option<Speaker>,
    sizes: Option<Listener>,
) -> Result<i32, Refusal> {
    let to_the_end = async {
        let output = say(process.stdout, stdout);
        let errors = say(process.stderr, stderr);
        join!(process.end, output, errors).0
    };
    let meanwhile = async {
        join!(feed(stdin, process.stdin), resize(sizes, process.terminal));
        pending::<Infallible>().await
    };
    select! {
        ended = to_the_end => ended,
        never = meanwhile => match never {},
    }
}

/// Says to the client what the process says, and where that ends.
async fn say(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<Speaker>) {
    let Some(mut to) = to else { return };
    if let Some(from) = from
        && let Err(error) = pass(from, &mut to).await
    {
        debug!("an output of a command ends: {error}");
    }
    let _ = to.shutdown().await;
}

/// Feeds what the client says to the process, until one of them has enough. What the client says then
/// is dropped.
async fn feed(from: Option<Listener>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(from), Some(mut to)) = (from, to) else { return };
    if let Err(error) = pass(from, &mut to).await {
        debug!("the input of a command ends: {error}");
    }
    let _ = to.shutdown().await;
}

/// Sets the sizes that the client says, as long as it says sizes.
async fn resize(from: Option<Listener>, terminal: Option<Box<dyn Terminal>>) {
    let (Some(mut from), Some(mut terminal)) = (from, terminal) else { return };
    let (mut sizes, mut piece) = (Sizes::default(), [0; 1 << 10]);
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let Ok(size) = sizes.take(&piece[..read]) else { return };
        let Some(size) = size else { continue };
        if let Err(refusal) = terminal.resize(size).await {
            debug!("a terminal is not resized: {refusal}");
        }
    }
}

/// Reads only when what was read before has been taken.
pub(crate) async fn pass(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).await? {
            0 => return Ok(()),
            read => to.write_all(&piece[..read]).await?,
        }
        to.flush().await?;
    }
}
