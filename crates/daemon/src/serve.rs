//! Serves until it is asked to end, and then drains.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use config::Config;
use cri::{AdminService, ImageService, RuntimeService};
use cri_proto::{
    MAX_MESSAGE,
    admin::admin_server::AdminServer,
    v1::{
        self, image_service_client::ImageServiceClient, image_service_server::ImageServiceServer,
        runtime_service_client::RuntimeServiceClient, runtime_service_server::RuntimeServiceServer,
    },
};
use serving::DRAIN;
use tonic::service::Routes;

use crate::build::{self, Daemon, Error};

pub(crate) async fn serve(config: Config) -> Result<(), Error> {
    let begun = Instant::now();
    let daemon = build::build(&config).await?;
    // After that, what shims are to have is known.
    serving::raise_file_limit();
    let listener =
        serving::patiently(|| serving::listen(&config.socket), serving::Error::is_held).await?;
    daemon.pods.recover().await?;
    let ended = serving::ended()?;
    let routes = Routes::new(runtime(&daemon)).add_service(images(&daemon));
    let routes = routes.add_service(admin(&daemon)).prepare();
    tracing::info!(socket = %config.socket.display(), ms = begun.elapsed().as_millis(), "serving");
    serving::tell_ready();
    let watch = tokio::spawn(watch(config.socket.clone()));
    let streams = Arc::clone(&daemon.streams);
    let (end, until) = tokio::sync::oneshot::channel::<()>();
    let streaming = tokio::spawn(async move {
        // It ends too if whoever was to say so is gone.
        streams.serve(async move { drop(until.await) }).await;
    });
    let ended = async {
        ended.await;
        watch.abort();
        // Who listens would do so for ever, and the calls that are under way are waited for.
        daemon.pods.end_events();
    };
    serving::answer(&listener, &routes, ended).await;
    drop(end);
    let _ = streaming.await;
    drain(&config, &daemon).await;
    Ok(())
}

/// The watchdog's round is what a client does: it connects, asks for a pod that there is none of, and for
/// an image, and so waits for all that a kubelet would wait for.
async fn watch(socket: PathBuf) {
    serving::keep_watch(|| round(socket.clone())).await;
}

async fn round(socket: PathBuf) -> Result<(), String> {
    call(&socket).await.map_err(|error| names::chain(&*error))
}

async fn call(socket: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let channel = cri_proto::endpoint(socket)?.connect().await?;
    let filter = v1::PodSandboxFilter { id: NOBODY.into(), ..Default::default() };
    let pods = v1::ListPodSandboxRequest { filter: Some(filter) };
    RuntimeServiceClient::new(channel.clone()).list_pod_sandbox(pods).await?;
    let image = v1::ImageSpec { image: NOBODY.into(), ..Default::default() };
    let images = v1::ImageStatusRequest { image: Some(image), ..Default::default() };
    ImageServiceClient::new(channel).image_status(images).await?;
    Ok(())
}

/// No pod and no image is called so.
const NOBODY: &str = "nobody";

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

async fn drain(config: &Config, daemon: &Daemon) {
    serving::tell_stopping();
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
