//! Serves until it is asked to end, and then drains.

use std::{fs, time::Instant};

use cri_proto::MAX_MESSAGE;
use sandbox_api::v1::controller_server::ControllerServer;
use serving::DRAIN;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::{
    Arguments,
    build::{self, Error, Parts},
    service::Service,
};

pub(crate) async fn serve(arguments: Arguments) -> Result<(), Error> {
    let begun = Instant::now();
    let Parts { sandboxes, shims, _lock } = build::build(&arguments).await?;
    // After that, what shims are to have is known.
    serving::raise_file_limit();
    let listener =
        serving::patiently(|| serving::listen(&arguments.socket), serving::Error::is_held).await?;
    sandboxes.recover().await?;
    let (ends, ending) = watch::channel(false);
    let tasks = TaskTracker::new();
    let service = Service::new(sandboxes.clone(), tasks.clone(), ending);
    let server = ControllerServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let ended = serving::ended()?;
    tracing::info!(socket = %arguments.socket.display(), sandboxes = sandboxes.count(), ms = begun.elapsed().as_millis(), "serving");
    serving::tell_ready();
    let ended = async {
        ended.await;
        serving::tell_stopping();
        // Calls that wait would do so for ever.
        ends.send_replace(true);
    };
    serving::answer(&listener, &Routes::new(server).prepare(), ended).await;
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
