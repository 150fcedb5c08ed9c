//! The part of the fake that only Podbay has.

use cri_proto::admin::admin_server::Admin;
use cri_proto::admin::{
    LayerState, ListQuarantineRequest, ListQuarantineResponse, LoadImageRequest, LoadImageResponse,
    MakeImageRequest, MakeImageResponse, PullDone, PullImageRequest, PullImageResponse,
    PullProgress, Quarantined, RemoveQuarantinedRequest, RemoveQuarantinedResponse,
    SaveImageRequest, SaveImageResponse, TagImageRequest, TagImageResponse, pull_image_response,
};
use cri_proto::v1;
use tokio_stream::StreamExt;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Answer, Fake, answer};

fn steps<T: Send + 'static>(steps: Vec<Result<T, Status>>) -> Answer<BoxStream<T>> {
    Ok(Response::new(Box::pin(tokio_stream::iter(steps))))
}

#[async_trait]
impl Admin for Fake {
    async fn load_image(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Answer<LoadImageResponse> {
        let mut pieces = request.into_inner();
        while let Some(piece) = pieces.next().await {
            self.state().loaded.extend(piece?.chunk);
        }
        Ok(Response::new(LoadImageResponse { references: vec!["example.com/a:1".to_owned()] }))
    }

    async fn save_image(
        &self,
        request: Request<SaveImageRequest>,
    ) -> Answer<BoxStream<SaveImageResponse>> {
        if request.into_inner().image != "nginx" {
            return Err(Status::not_found("no such image"));
        }
        let piece = |text: &str| Ok(SaveImageResponse { chunk: text.into() });
        match self.state().breaks {
            true => steps(vec![piece("arch"), Err(Status::data_loss("the disk burns"))]),
            false => steps(vec![piece("arch"), piece("ive")]),
        }
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Answer<BoxStream<PullImageResponse>> {
        let request = request.into_inner();
        let who = request.credentials.unwrap_or_default();
        self.state()
            .asked
            .push(format!("pull {} as {}:{}", request.image, who.username, who.password));
        let step = |step| Ok(PullImageResponse { step: Some(step) });
        let progress = |done, state: LayerState| {
            step(pull_image_response::Step::Progress(PullProgress {
                layer_digest: format!("sha256:{}", "ab".repeat(32)),
                done,
                total: 2000,
                state: state.into(),
            }))
        };
        let done = PullDone { image_id: "sha256:pulled".to_owned() };
        steps(vec![
            progress(0, LayerState::Downloading),
            progress(1000, LayerState::Downloading),
            progress(2000, LayerState::Done),
            step(pull_image_response::Step::Done(done)),
        ])
    }

    async fn tag_image(&self, request: Request<TagImageRequest>) -> Answer<TagImageResponse> {
        let TagImageRequest { image, reference } = request.into_inner();
        self.state().asked.push(format!("tag {image} {reference}"));
        answer()
    }

    async fn make_image(&self, request: Request<MakeImageRequest>) -> Answer<MakeImageResponse> {
        let request = request.into_inner();
        let id = "sha256:made".to_owned();
        let image =
            v1::Image { id: id.clone(), repo_tags: vec![request.reference], ..Default::default() };
        self.state().images.push(image);
        Ok(Response::new(MakeImageResponse { image_id: id }))
    }

    async fn list_quarantine(
        &self,
        _: Request<ListQuarantineRequest>,
    ) -> Answer<ListQuarantineResponse> {
        let item = Quarantined {
            key: "pod/x".to_owned(),
            kind: "pod".to_owned(),
            reason: "torn".to_owned(),
            time: 0,
        };
        Ok(Response::new(ListQuarantineResponse { items: vec![item] }))
    }

    async fn remove_quarantined(
        &self,
        request: Request<RemoveQuarantinedRequest>,
    ) -> Answer<RemoveQuarantinedResponse> {
        self.state().asked.push(format!("remove record {}", request.into_inner().key));
        answer()
    }
}
