//! Serves until it is asked to end, and then drains.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use cri_proto::MAX_MESSAGE;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use sandbox_api::v1::controller_server::ControllerServer;
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::{
    Arguments,
    build::{self, Error, Parts},
    service::Service,
};

/// How long calls that are under way may take to end when the process does.
const DRAIN: Duration = Duration::from_secs(20);

/// Root and the group of the socket may call: who can call is root on this machine.
const SOCKET_MODE: u32 = 0o660;

pub(crate) async fn serve(arguments: Arguments) -> Result<(), Error> {
    let begun = Instant::now();
    let Parts { sandboxes, shims, _lock } = build::build(&arguments).await?;
    let listener = build::patiently(|| listen(&arguments.socket)).await?;
    sandboxes.recover().await?;
    let (ends, ending) = watch::channel(false);
    let tasks = TaskTracker::new();
    let service = Service::new(sandboxes.clone(), tasks.clone(), ending);
    let server = ControllerServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let ended = ended()?;
    tracing::info!(socket = %arguments.socket.display(), sandboxes = sandboxes.count(), ms = begun.elapsed().as_millis(), "serving");
    tell(&[NotifyState::Ready]);
    answer(&listener, &Routes::new(server).prepare(), ended, &ends).await;
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!(
            "calls are still under way; what is half made will be undone at the next start"
        );
    }
    let _ = fs::remove_file(&arguments.socket);
    shims.close().await;
    tracing::info!("ended; sandboxes go on");
    Ok(())
}

/// Answers until `ended`, and then lets the calls that are under way come to theirs.
///
/// tonic's own server is not used: it keeps a client's deadline too, a moment before the client does,
/// and then says CANCELLED where DEADLINE_EXCEEDED is expected. Here the client's clock alone counts.
async fn answer(
    listener: &UnixListener,
    routes: &Routes,
    ended: impl Future<Output = ()>,
    ends: &watch::Sender<bool>,
) {
    let mut http = http2::Builder::new(TokioExecutor::new());
    // A Wait lasts as long as its sandbox, and there may be many.
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
    tell(&[NotifyState::Stopping]);
    ends.send_replace(true);
    if tokio::time::timeout(DRAIN, calls.shutdown()).await.is_err() {
        tracing::warn!("calls are still under way; their clients will see the connection end");
    }
}

/// A socket that nobody answers at is one that a killed process has left.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    if let Some(dir) = path.parent() {
        build::make_dir(dir)?;
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
fn ended() -> Result<impl Future<Output = ()>, Error> {
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

/// Tells systemd, if it is systemd that has started us.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
