//! ImageService.

use std::sync::Arc;

use cri_proto::v1::{self, image_service_server};
use images::{Image, Images, Usage};
use names::ImageRef;
use registry::Auth;
use tonic::{Request, Response, Status, codegen::BoxStream};

use crate::{code, parse, pieces, show};

/// Serves `runtime.v1.ImageService`.
#[derive(Clone)]
pub struct ImageService {
    images: Images,
}

impl ImageService {
    pub fn new(images: Images) -> Self {
        Self { images }
    }

    fn wanted(&self, filter: Option<v1::ImageFilter>) -> Vec<Arc<Image>> {
        match filter.and_then(|filter| filter.image).map(|spec| spec.image).as_deref() {
            None | Some("") => self.images.list(),
            Some(name) => self.images.find(name).into_iter().collect(),
        }
    }
}

#[tonic::async_trait]
impl image_service_server::ImageService for ImageService {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.wanted(request.into_inner().filter);
        let images = images.iter().map(|image| show::image(image)).collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<BoxStream<v1::StreamImagesResponse>>, Status> {
        let images = self.wanted(request.into_inner().filter).into_iter();
        let images = images.map(|image| show::image(&image));
        let piece = |images| v1::StreamImagesResponse { images };
        Ok(Response::new(pieces::of(images, piece)))
    }

    /// An image that is not there is no error.
    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let found = self.images.find(&name);
        let mut info = std::collections::BTreeMap::new();
        if let (true, Some(image)) = (request.verbose, &found) {
            info.insert("info".to_owned(), image.config_text().to_owned());
        }
        let image = found.as_deref().map(show::image);
        Ok(Response::new(v1::ImageStatusResponse { image, info }))
    }

    /// The pull ends when its last client goes away.
    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        let reference = reference(&named(request.image)?)?;
        let auth = request.auth.map(auth).transpose()?.flatten();
        let id = self.images.pull(&reference, auth, None).await.map_err(|e| code::pull(&e))?;
        Ok(Response::new(v1::PullImageResponse { image_ref: id.to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        self.images.remove(&name).await.map_err(|e| code::image(&e))?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let at = names::now();
        let root = self.images.root();
        let layers = self.images.usage();
        let containers = self.images.containers_usage().await.map_err(|e| code::image(&e))?;
        let show = |usage: Usage| vec![show::filesystem(root, usage, at)];
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: show(layers),
            container_filesystems: show(containers),
        }))
    }
}

fn named(image: Option<v1::ImageSpec>) -> Result<String, Status> {
    let image = parse::needed(image, "image").map_err(code::rejected)?;
    parse::word(image.image, "image.image").map_err(code::rejected)
}

pub(crate) fn reference(text: &str) -> Result<ImageRef, Status> {
    text.parse::<ImageRef>()
        .map_err(|bad| code::rejected(parse::rejected("image.image", bad.to_string())))
}

/// The credentials of the request; empty ones are none.
fn auth(config: v1::AuthConfig) -> Result<Option<Auth>, Status> {
    let (mut username, mut password) = (config.username, config.password);
    if username.is_empty() && !config.auth.is_empty() {
        let pair = Auth::from_base64(&config.auth).ok_or_else(|| {
            code::rejected(parse::rejected("auth.auth", "is not base64 of USER:PASSWORD"))
        })?;
        (username, password) = (pair.username, pair.password);
    }
    let texts = [&username, &password, &config.identity_token, &config.registry_token];
    if texts.iter().all(|text| text.is_empty()) {
        return Ok(None);
    }
    Ok(Some(Auth {
        username,
        password,
        identity_token: config.identity_token,
        registry_token: config.registry_token,
        server_address: config.server_address,
    }))
}
