//! What every daemon here does that serves gRPC at a unix socket: one at a time has the folder and the
//! socket, calls are answered, a signal ends it, and what is under way comes to its end. What is served
//! is not known here.

use std::{
    fs,
    io::{self, IsTerminal},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    pin::pin,
    time::{Duration, Instant},
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tonic::service::Routes;
use tracing_subscriber::EnvFilter;

/// How long what is under way may take to end when the daemon does.
pub const DRAIN: Duration = Duration::from_secs(20);

/// Root and the group of the socket may call: who can call is root on this machine.
const SOCKET_MODE: u32 = 0o660;

/// How long what a killed daemon held may still be held: its last child, between fork and exec, has
/// inherited it.
const INHERITED: Duration = Duration::from_secs(2);

/// Why a daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("somebody answers at {} already: give each daemon a socket of its own", .0.display())]
    SocketInUse(PathBuf),
    #[error("another process uses {}: give each daemon a state folder of its own", .0.display())]
    StateInUse(PathBuf),
}

impl Error {
    fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }

    /// Whether another process has what this one needs, or seems to.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::SocketInUse(_) | Self::StateInUse(_))
    }
}

/// Makes a folder that only root may look into, with those above it.
pub fn make_dir(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::io("making the folder", path, source))
}

/// Takes a state folder for this process alone, for as long as the file is held.
pub fn lock(state: &Path, name: &str) -> Result<fs::File, Error> {
    let path = state.join(name);
    let file = fs::File::create(&path).map_err(|e| Error::io("opening", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::StateInUse(state.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(Error::io("locking", path, source)),
    }
}

/// Tries again, for a short while, what somebody else seems to hold.
pub async fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + INHERITED;
    loop {
        match attempt() {
            Err(error) if is_held(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

/// Listens at a path. A socket that nobody answers at is one that a killed process has left.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(Error::SocketInUse(path.to_owned()));
    }
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(|e| Error::io("listening at", path, e))?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(|e| Error::io("restricting", path, e))?;
    Ok(listener)
}

/// Comes to its end when the process is asked to.
pub fn ended() -> Result<impl Future<Output = ()>, Error> {
    let signals = |kind| signal(kind).map_err(|e| Error::io("waiting for", "signals", e));
    let (mut term, mut int) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// Answers until `ended`, and then lets the calls that are under way come to theirs.
///
/// tonic's own server is not used: it keeps a client's deadline too, a moment before the client does,
/// and then says CANCELLED where DEADLINE_EXCEEDED is expected. Here the client's clock alone counts;
/// when its deadline passes it resets the stream, and the call's future is dropped.
pub async fn answer(listener: &UnixListener, routes: &Routes, ended: impl Future<Output = ()>) {
    let mut http = http2::Builder::new(TokioExecutor::new());
    // A call that waits may last as long as a pod, and there may be many.
    http.max_concurrent_streams(u32::MAX);
    let calls = GracefulShutdown::new();
    let mut ended = pin!(ended);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: calls that end will free some.
                    tracing::warn!(%error, "a client cannot be served");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut ended => break,
        };
        let service = TowerToHyperService::new(routes.clone());
        let connection = calls.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    if tokio::time::timeout(DRAIN, calls.shutdown()).await.is_err() {
        tracing::warn!("calls are still under way; their clients will see the connection end");
    }
}

/// Logs to standard error what the filter lets through.
///
/// # Errors
/// Why it is no filter, in words.
pub fn log_as(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    // A journal keeps colours as text.
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    lines.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).init();
    Ok(())
}

/// Lets this process have as many files open as it may have at the most: each open command takes some,
/// and what systems give by default (1024) is for programs that use `select`.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays as it was");
    }
}

/// Tells systemd that this process serves, if it is systemd that has started it.
pub fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that it is about to end.
pub fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells systemd that this process does what it is for, as often as systemd wants to hear it; for ever, or
/// not at all if it does not want to. Each time a `round` is made first, through all that must work: one that
/// fails, or takes too long, is followed by no word, and then systemd starts the process anew.
pub async fn keep_watch<R, E>(round: impl FnMut() -> R)
where
    R: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    watch(limit, round, || tell(&[NotifyState::Watchdog])).await;
}

/// One that fails can be made again before the time is over.
async fn watch<R, E>(limit: Duration, mut round: impl FnMut() -> R, tell: impl Fn())
where
    R: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut ticks = tokio::time::interval(limit / ROUNDS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(limit / ROUNDS, round()).await {
            Ok(Ok(())) => tell(),
            Ok(Err(error)) => tracing::warn!(%error, "a call of our own is not answered"),
            Err(_) => tracing::warn!("a call of our own is not answered in time"),
        }
    }
}

/// How many rounds are made in the time that systemd gives.
const ROUNDS: u32 = 3;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_is_one_processes_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path(), "x.lock").unwrap();
        let error = lock(dir.path(), "x.lock").unwrap_err();
        assert!(error.is_held() && error.to_string().contains("state"), "{error}");
        drop(held);
        lock(dir.path(), "x.lock").unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_process_left_is_taken_over_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/x.sock");
        let live = listen(&path).unwrap();
        assert!(listen(&path).unwrap_err().is_held());
        drop(live);
        assert!(path.exists());
        listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
    }

    #[tokio::test(start_paused = true)]
    async fn systemd_hears_of_rounds_that_were_made_and_of_no_others() {
        let told = std::cell::RefCell::new(Vec::new());
        let begun = tokio::time::Instant::now();
        let mut rounds = 0;
        let round = || {
            rounds += 1;
            let number = rounds;
            async move {
                match number {
                    2 => Err("refused"),
                    3 => std::future::pending().await,
                    _ => Ok(()),
                }
            }
        };
        let tell = || told.borrow_mut().push(begun.elapsed().as_secs());
        let watched = watch(Duration::from_secs(30), round, tell);
        let _ = tokio::time::timeout(Duration::from_secs(41), watched).await;
        assert_eq!(*told.borrow(), [0, 30, 40]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_tried_again_and_not_for_ever() {
        let held = || Error::StateInUse("/x".into());
        let mut tries = 0;
        let got = patiently(
            || {
                tries += 1;
                if tries < 3 { Err(held()) } else { Ok(tries) }
            },
            Error::is_held,
        );
        assert_eq!(got.await.unwrap(), 3);
        let other = || Err::<(), _>(Error::io("opening", "/x", io::ErrorKind::NotFound.into()));
        assert!(!patiently(other, Error::is_held).await.unwrap_err().is_held(), "at once");
    }
}
