//! The image of the containers: one that is there, or one that Podbay is asked to make. Nothing is
//! pulled, for a registry is not what is measured.

use std::path::Path;

use cri_proto::admin::{File, MakeImageRequest};
use cri_proto::v1;

use crate::args::Args;
use crate::error::Error;
use crate::target::Target;

/// Never resolvable, so that it can be mistaken for no other.
const MADE: &str = "podbay.invalid/bench:latest";

/// An image as a kubelet knows it.
#[derive(Clone, Debug)]
pub struct Image {
    /// What a person calls it.
    pub name: String,
    /// What PullImage would have returned.
    pub id: String,
}

pub async fn choose(args: &Args, target: &Target) -> Result<Image, Error> {
    if let Some(busybox) = &args.make_image {
        return make(busybox, target).await;
    }
    match &args.image {
        Some(name) => named(name, target).await,
        None => any_busybox(target).await,
    }
}

async fn named(name: &str, target: &Target) -> Result<Image, Error> {
    let request = v1::ImageStatusRequest { image: Some(spec(name)), verbose: false };
    let status = target.images().image_status(request).await;
    let image = target.checked("ImageStatus", status)?.image.ok_or_else(|| Error::NoSuchImage {
        wanted: name.to_owned(),
        socket: target.socket.clone(),
    })?;
    Ok(Image { name: name.to_owned(), id: image.id })
}

async fn any_busybox(target: &Target) -> Result<Image, Error> {
    let list = target.images().list_images(v1::ListImagesRequest::default()).await;
    let images = target.checked("ListImages", list)?.images;
    let found = images.into_iter().find_map(|image| {
        let name = image.repo_tags.iter().find(|tag| tag.contains("busybox"))?.clone();
        Some(Image { name, id: image.id })
    });
    found.ok_or_else(|| Error::NoImage { socket: target.socket.clone() })
}

async fn make(busybox: &Path, target: &Target) -> Result<Image, Error> {
    let content = std::fs::read(busybox)
        .map_err(|source| Error::Busybox { path: busybox.to_owned(), source })?;
    let mut files =
        vec![File { path: "/bin/busybox".to_owned(), mode: 0o755, content, link: String::new() }];
    files.extend(["sh", "sleep", "true"].map(link));
    let request =
        MakeImageRequest { reference: MADE.to_owned(), files, ..MakeImageRequest::default() };
    let made = target.admin().make_image(request).await;
    let id = target.checked("MakeImage", made)?.image_id;
    Ok(Image { name: MADE.to_owned(), id })
}

fn link(applet: &str) -> File {
    File {
        path: format!("/bin/{applet}"),
        mode: 0o755,
        content: Vec::new(),
        link: "/bin/busybox".to_owned(),
    }
}

/// Removes what `choose` had made, if it had. Content with an image that is not there.
pub async fn unmake(args: &Args, target: &Target) -> Result<(), Error> {
    if args.make_image.is_none() {
        return Ok(());
    }
    let request = v1::RemoveImageRequest { image: Some(spec(MADE)) };
    let removed = target.images().remove_image(request).await;
    target.checked("RemoveImage", removed).map(drop)
}

fn spec(name: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: name.to_owned(), ..v1::ImageSpec::default() }
}
