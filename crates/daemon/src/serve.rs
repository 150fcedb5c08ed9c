//! Serves until it is asked to end, and then drains.

use std::{fs, sync::Arc, time::Instant};

use config::Config;
use cri::{AdminService, ImageService, RuntimeService};
use cri_proto::{
    MAX_MESSAGE,
    admin::admin_server::AdminServer,
    v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer},
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
    serving::answer(&listener, &routes, ended).await;
    drop(end);
    let _ = streaming.await;
    drain(&config, &daemon).await;
    Ok(())
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
