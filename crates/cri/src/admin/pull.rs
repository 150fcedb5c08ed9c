//! A pull that tells how far it is.

use cri_proto::admin::{self, LayerState, pull_image_response::Step};
use images::{Images, LayerProgress, LayerState as State, Progress};
use names::ImageRef;
use registry::Auth;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, codegen::BoxStream};

use crate::code;

type Message = Result<admin::PullImageResponse, Status>;

/// The pull ends when its client goes away, unless others wait for it too.
pub(super) fn pull(
    images: Images,
    image: ImageRef,
    auth: Option<Auth>,
) -> BoxStream<admin::PullImageResponse> {
    let (messages, stream) = mpsc::channel(16);
    tokio::spawn(async move {
        let (told, progress) = watch::channel(Progress::default());
        let telling = tell(progress, messages.clone());
        let pulling = images.pull(&image, auth, Some(told));
        let last = tokio::select! {
            () = messages.closed() => return,
            (pulled, ()) = async { tokio::join!(pulling, telling) } => pulled,
        };
        let last = match last {
            Ok(id) => Ok(step(Step::Done(admin::PullDone { image_id: id.to_string() }))),
            Err(error) => Err(code::pull(&error)),
        };
        let _ = messages.send(last).await;
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Sends what has changed of each layer, until the pull is over. A slow client gets fewer messages.
async fn tell(mut progress: watch::Receiver<Progress>, messages: mpsc::Sender<Message>) {
    let mut before = Progress::default();
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        for (n, layer) in now.layers.iter().enumerate() {
            if before.layers.get(n) != Some(layer)
                && messages.send(Ok(step(Step::Progress(shown(layer))))).await.is_err()
            {
                return;
            }
        }
        before = now;
    }
}

fn step(step: Step) -> admin::PullImageResponse {
    admin::PullImageResponse { step: Some(step) }
}

fn shown(layer: &LayerProgress) -> admin::PullProgress {
    let (done, state) = match layer.state {
        State::Waiting => (0, LayerState::Waiting),
        State::Coming(bytes) if bytes >= layer.total => (layer.total, LayerState::Unpacking),
        State::Coming(bytes) => (bytes, LayerState::Downloading),
        State::Present => (layer.total, LayerState::Present),
        State::Done => (layer.total, LayerState::Done),
    };
    admin::PullProgress {
        layer_digest: layer.blob.to_string(),
        done,
        total: layer.total,
        state: state.into(),
    }
}
