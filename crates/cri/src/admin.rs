//! What the command line asks beyond CRI: archives of images, pulls that tell how far they are, and
//! the quarantine.

mod archive;
mod pull;

use std::path::PathBuf;

use cri_proto::admin::{self, admin_server};
use images::{ImageConfig, Images, NewFile, NewKind};
use pods::Pods;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{code, image_service::reference, parse};

/// Serves `podbay.admin.v1.Admin`.
#[derive(Clone)]
pub struct AdminService {
    pods: Pods,
    images: Images,
}

impl AdminService {
    pub fn new(pods: Pods, images: Images) -> Self {
        Self { pods, images }
    }
}

#[tonic::async_trait]
impl admin_server::Admin for AdminService {
    async fn load_image(
        &self,
        request: Request<Streaming<admin::LoadImageRequest>>,
    ) -> Result<Response<admin::LoadImageResponse>, Status> {
        let references = archive::load(&self.images, request.into_inner()).await?;
        Ok(Response::new(admin::LoadImageResponse { references }))
    }

    async fn save_image(
        &self,
        request: Request<admin::SaveImageRequest>,
    ) -> Result<Response<BoxStream<admin::SaveImageResponse>>, Status> {
        let name = request.into_inner().image;
        Ok(Response::new(archive::save(self.images.clone(), name)))
    }

    async fn pull_image(
        &self,
        request: Request<admin::PullImageRequest>,
    ) -> Result<Response<BoxStream<admin::PullImageResponse>>, Status> {
        let request = request.into_inner();
        let image = reference(&request.image)?;
        let auth = request.credentials.map(|given| registry::Auth {
            username: given.username,
            password: given.password,
            ..registry::Auth::default()
        });
        Ok(Response::new(pull::pull(self.images.clone(), image, auth)))
    }

    async fn tag_image(
        &self,
        request: Request<admin::TagImageRequest>,
    ) -> Result<Response<admin::TagImageResponse>, Status> {
        let request = request.into_inner();
        let tag = reference(&request.reference)?;
        self.images.tag(&request.image, &tag).await.map_err(|e| code::image(&e))?;
        Ok(Response::new(admin::TagImageResponse {}))
    }

    async fn make_image(
        &self,
        request: Request<admin::MakeImageRequest>,
    ) -> Result<Response<admin::MakeImageResponse>, Status> {
        let request = request.into_inner();
        let name = reference(&request.reference)?;
        let config = ImageConfig {
            entrypoint: request.entrypoint,
            cmd: request.cmd,
            env: request.env,
            ..ImageConfig::default()
        };
        let files = request.files.into_iter().map(file);
        let made = self.images.make(&name, files, config).await.map_err(|e| code::image(&e))?;
        Ok(Response::new(admin::MakeImageResponse { image_id: made.to_string() }))
    }

    async fn list_quarantine(
        &self,
        _: Request<admin::ListQuarantineRequest>,
    ) -> Result<Response<admin::ListQuarantineResponse>, Status> {
        let records = self.pods.quarantine().map_err(code::status)?.into_iter().map(record);
        let images = self.images.quarantined().await.map_err(|e| code::image(&e))?;
        let items = records.chain(images.into_iter().map(image)).collect();
        Ok(Response::new(admin::ListQuarantineResponse { items }))
    }

    async fn remove_quarantined(
        &self,
        request: Request<admin::RemoveQuarantinedRequest>,
    ) -> Result<Response<admin::RemoveQuarantinedResponse>, Status> {
        let key = parse::word(request.into_inner().key, "key").map_err(code::rejected)?;
        match key.strip_prefix(OF_IMAGES) {
            Some(name) => {
                self.images.discard_quarantined(name).await.map_err(|e| code::image(&e))?;
            }
            None => self.pods.discard(&key).await.map_err(code::status)?,
        }
        Ok(Response::new(admin::RemoveQuarantinedResponse {}))
    }
}

/// What keys of the image store's quarantine begin with. No table of records is called so.
const OF_IMAGES: &str = "images/";

fn record(held: pods::Quarantined) -> admin::Quarantined {
    admin::Quarantined {
        key: held.name(),
        kind: held.table.trim_end_matches('s').to_owned(),
        reason: held.reason,
        time: held.at,
    }
}

fn image(held: images::Quarantined) -> admin::Quarantined {
    admin::Quarantined {
        key: format!("{OF_IMAGES}{}", held.name),
        kind: held.kind.to_owned(),
        reason: held.why,
        time: held.at,
    }
}

fn file(file: admin::File) -> NewFile {
    let kind = match (file.link.as_str(), file.path.ends_with('/')) {
        ("", false) => NewKind::Regular(file.content),
        ("", true) => NewKind::Directory,
        (link, _) => NewKind::Link(PathBuf::from(link)),
    };
    NewFile { path: PathBuf::from(file.path), mode: file.mode, kind }
}
