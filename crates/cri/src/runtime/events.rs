//! GetContainerEvents: what happens, as it happens.

use cri_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, codegen::BoxStream};

use super::RuntimeService;
use crate::{code, show};

impl RuntimeService {
    /// Who has the answer to this call hears of all that happens from then on, until it goes away. A
    /// client that is too slow is sent away, with an error that says so: the kubelet lists all then,
    /// and calls again.
    pub(super) async fn get_container_events(
        &self,
        _: v1::GetEventsRequest,
    ) -> Result<BoxStream<v1::ContainerEventResponse>, Status> {
        let mut listener = self.pods.listen().map_err(code::status)?;
        let (sender, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = listener.next() => event,
                    () = sender.closed() => return,
                };
                let is_last = event.is_err();
                let message = event.map(|event| show::event(&event)).map_err(code::status);
                if sender.send(message).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}
