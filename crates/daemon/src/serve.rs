//! Serves until it is asked to end, and then drains.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use config::Config;
use cri::{AdminService, ImageService, RuntimeService};
use cri_proto::{
    MAX_MESSAGE,
    admin::admin_server::AdminServer,
    v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer},
};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tonic::service::Routes;

use crate::build::{self, Daemon, Error};

/// How long operations that are under way may take to end when podbayd does. What is not done by
/// then is taken up at the next start, from its record.
const DRAIN: Duration = Duration::from_secs(20);

/// Root and the group of the socket may call: who can call is root on this machine.
const SOCKET_MODE: u32 = 0o660;

pub(crate) async fn serve(config: Config) -> Result<(), Error> {
    let begun = Instant::now();
    let daemon = build::build(&config).await?;
    let listener = build::patiently(|| listen(&config.socket), Error::is_held).await?;
    daemon.pods.recover().await?;
    let ended = ended()?;
    let routes = Routes::new(runtime(&daemon)).add_service(images(&daemon));
    let routes = routes.add_service(admin(&daemon)).prepare();
    tracing::info!(socket = %config.socket.display(), ms = begun.elapsed().as_millis(), "serving");
    tell(&[NotifyState::Ready]);
    let streams = Arc::clone(&daemon.streams);
    let (end, until) = tokio::sync::oneshot::channel::<()>();
    let streaming = tokio::spawn(async move {
        // It ends too if whoever was to say so is gone.
        streams.serve(async move { drop(until.await) }).await;
    });
    let ended = async {
        ended.await;
        // Who listens would do so for ever, and the calls that are under way are waited for.
        daemon.pods.end_events();
    };
    answer(&listener, &routes, ended).await;
    drop(end);
    let _ = streaming.await;
    drain(&config, &daemon).await;
    Ok(())
}

/// Answers until `ended`, and then lets the calls that are under way come to theirs.
///
/// tonic's own server is not used: it keeps a client's deadline too, a moment before the client
/// does, and then says CANCELLED where DEADLINE_EXCEEDED is expected. Here the client's clock alone
/// counts; when its deadline passes it resets the stream, and the call's future is dropped.
async fn answer(listener: &UnixListener, routes: &Routes, ended: impl Future<Output = ()>) {
    let http = http2::Builder::new(TokioExecutor::new());
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

fn runtime(daemon: &Daemon) -> RuntimeServiceServer<RuntimeService> {
    let streams = Arc::clone(&daemon.streams);
    let service = RuntimeService::new(daemon.pods.clone(), daemon.facts.clone(), streams);
    RuntimeServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

fn images(daemon: &Daemon) -> ImageServiceServer<ImageService> {
    ImageServiceServer::new(ImageService::new(daemon.images.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

fn admin(daemon: &Daemon) -> AdminServer<AdminService> {
    AdminServer::new(AdminService::new(daemon.pods.clone(), daemon.images.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// A socket that nobody answers at is one that a killed podbayd has left.
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

/// Comes to its end when podbayd is asked to.
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

async fn drain(config: &Config, daemon: &Daemon) {
    tell(&[NotifyState::Stopping]);
    let _ = fs::remove_file(&config.socket);
    if !daemon.pods.drained(DRAIN).await {
        tracing::warn!("operations are still under way; they will be taken up at the next start");
    }
    if config.network.bridge.remove_on_exit && daemon.pods.pods().is_empty() {
        daemon.pods.remove_bridge().await;
    }
    daemon.shims.close().await;
    tracing::info!("ended; pods go on running");
}

/// Tells systemd, if it is systemd that has started us.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
