//! `podbay image ls`, `rm` and `tag`.

use std::io::Write;

use cri_proto::{admin, v1};

use crate::args::Format;
use crate::error::Error;
use crate::link::{CHANGE, LOOK, Link, answer, within};
use crate::words::{short, size};
use crate::{json, table};

pub async fn ls(link: &Link, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    let request = within(LOOK, v1::ListImagesRequest::default());
    let mut images = answer("ListImages", link.images().list_images(request).await)?.images;
    images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    match format {
        Format::Json => super::print_json(out, &images.iter().map(json::image).collect()),
        Format::Table => super::print(out, &render(&images)),
    }
}

/// One line for each name, as people look for names.
fn render(images: &[v1::Image]) -> String {
    let rows: Vec<_> = images.iter().flat_map(rows).collect();
    table::render(["IMAGE", "TAG", "IMAGE ID", "SIZE", "PINNED"], &rows)
}

fn rows(image: &v1::Image) -> Vec<[String; 5]> {
    let row = |(name, tag): (String, String)| {
        let pinned = if image.pinned { "yes" } else { "-" };
        [name, tag, short(&image.id).to_owned(), size(image.size), pinned.to_owned()]
    };
    names(image).into_iter().map(row).collect()
}

/// Names and tags; for an image without a tag its repository, and for one without any name dashes.
fn names(image: &v1::Image) -> Vec<(String, String)> {
    let tagged = image.repo_tags.iter().filter_map(|name| name.rsplit_once(':'));
    let names: Vec<_> = tagged.map(|(name, tag)| (name.to_owned(), tag.to_owned())).collect();
    if !names.is_empty() {
        return names;
    }
    let repository = image.repo_digests.first().and_then(|name| name.split_once('@'));
    vec![(repository.map_or("-", |(name, _)| name).to_owned(), "-".to_owned())]
}

/// Removes each, and prints it when it is so. One that is not there is named: a person has
/// mistyped, where a kubelet has only been slow.
pub async fn rm(link: &Link, images: &[String], out: &mut dyn Write) -> Result<(), Error> {
    for wanted in images {
        let image = Some(v1::ImageSpec { image: wanted.clone(), ..Default::default() });
        let request = v1::ImageStatusRequest { image: image.clone(), verbose: false };
        let status = link.images().image_status(within(LOOK, request)).await;
        if answer("ImageStatus", status)?.image.is_none() {
            let (wanted, see) = (wanted.clone(), "podbay image ls");
            return Err(Error::NoSuch { kind: "image", wanted, see });
        }
        remove(link, wanted).await?;
        super::print(out, &format!("{wanted} removed\n"))?;
    }
    Ok(())
}

/// Content with an image that is not there.
pub async fn remove(link: &Link, name: &str) -> Result<(), Error> {
    let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
    let request = within(CHANGE, v1::RemoveImageRequest { image });
    answer("RemoveImage", link.images().remove_image(request).await).map(drop)
}

pub async fn tag(link: &Link, image: String, reference: String) -> Result<(), Error> {
    let request = within(CHANGE, admin::TagImageRequest { image, reference });
    answer("TagImage", link.admin().tag_image(request).await).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_an_image_has_a_line() {
        let digest = format!("example.com:5000/a@sha256:{}", "0".repeat(64));
        let image = |tags: &[&str], digests: &[String]| v1::Image {
            id: format!("sha256:{}", "0123".repeat(16)),
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            repo_digests: digests.to_vec(),
            size: 4_261_574,
            ..Default::default()
        };
        let images = [
            image(&["docker.io/library/busybox:1.36", "example.com:5000/a:latest"], &[]),
            image(&[], &[digest]),
            v1::Image { pinned: true, ..image(&[], &[]) },
        ];
        assert_eq!(render(&images), include_str!("../../golden/images.txt"));
    }
}
