//! An image that is here, and the ways to name it.

use std::sync::Arc;

use names::{Digest, ImageRef};
use serde::{Deserialize, Serialize};

use crate::config::{self, ImageConfig};

/// An image that is here, whole.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its config: the same wherever it came from.
    pub id: Digest,
    pub tags: Vec<ImageRef>,
    /// Repository and digest of what was pulled.
    pub digests: Vec<ImageRef>,
    /// Bytes on the disk, roughly; layers that it shares with others count in each.
    pub size: u64,
    pub config: ImageConfig,
    /// The diff ids, from the bottom up; one may be there twice.
    pub layers: Vec<Digest>,
    /// Not to be removed for want of space.
    pub pinned: bool,
    pub(crate) record: Arc<Record>,
}

/// What is kept of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub id: Digest,
    /// The config's text, exactly.
    pub config: String,
    pub layers: Vec<Digest>,
    pub tags: Vec<ImageRef>,
    pub digests: Vec<ImageRef>,
    pub size: u64,
    /// A layer of ours on top; see `amend`.
    #[serde(default)]
    pub amend: Option<Digest>,
    /// Grows with each record that is written. Of two that claim a tag the later one has it: a
    /// crash can come between giving it and taking it away.
    pub turn: u64,
}

impl Image {
    /// Reads a record's config anew, so that a later program finds in it what this one did not.
    /// It is pinned if it has one of the names `keep`.
    pub(crate) fn of(record: Record, keep: &[String]) -> Result<Image, serde_json::Error> {
        let parsed = config::parse(record.config.as_bytes())?;
        let mut image = Image {
            id: record.id.clone(),
            tags: record.tags.clone(),
            digests: record.digests.clone(),
            size: record.size,
            config: parsed.config,
            layers: record.layers.clone(),
            pinned: false,
            record: Arc::new(record),
        };
        image.pinned = keep.iter().any(|name| image.is_called(name));
        Ok(image)
    }

    fn is_called(&self, text: &str) -> bool {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        self.id.hex() == hex || text.parse().is_ok_and(|reference| self.is_named(&reference))
    }

    /// The text of its config, exactly as its digest has it.
    pub fn config_text(&self) -> &str {
        &self.record.config
    }

    /// All layers that a mount of it needs, from the bottom up.
    pub(crate) fn stacked(&self) -> Vec<Digest> {
        self.layers.iter().chain(&self.record.amend).cloned().collect()
    }

    fn is_named(&self, reference: &ImageRef) -> bool {
        match reference.digest() {
            Some(digest) => self.digests.iter().any(|own| {
                own.digest() == Some(digest) && own.repository() == reference.repository()
            }),
            None => self.tags.contains(reference),
        }
    }
}

/// The fewest digits of an id that are taken for one.
const SHORTEST: usize = 6;

/// Finds what `text` names: an id, a reference, or the beginning of one id only.
pub(crate) fn find<'a>(
    images: impl Iterator<Item = &'a Arc<Image>> + Clone,
    text: &str,
) -> Option<Arc<Image>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let mut all = images.clone();
    if let Some(image) = all.find(|image| image.id.hex() == hex) {
        return Some(Arc::clone(image));
    }
    let named = text.parse().ok().and_then(|reference| {
        let mut all = images.clone();
        all.find(|image| image.is_named(&reference)).map(Arc::clone)
    });
    named.or_else(|| short(images, hex))
}

fn short<'a>(images: impl Iterator<Item = &'a Arc<Image>>, hex: &str) -> Option<Arc<Image>> {
    if hex.len() < SHORTEST {
        return None;
    }
    let mut matching = images.filter(|image| image.id.hex().starts_with(hex));
    let first = matching.next()?;
    matching.next().is_none().then(|| Arc::clone(first))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn image(id: &str, tags: &[&str], digests: &[&str]) -> Arc<Image> {
        let read = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        Arc::new(
            Image::of(
                Record {
                    id: format!("sha256:{id:0<64}").parse().unwrap(),
                    config: r#"{"rootfs":{}}"#.into(),
                    layers: Vec::new(),
                    tags: read(tags),
                    digests: read(digests),
                    size: 1,
                    amend: None,
                    turn: 0,
                },
                &[],
            )
            .unwrap(),
        )
    }

    #[test]
    fn an_image_is_found_by_all_its_names_and_no_other() {
        let digest = format!("sha256:{}", "cd".repeat(32));
        let by_digest = format!("docker.io/library/busybox@{digest}");
        let images = [
            image("abcdef01", &["busybox:1"], &[&by_digest]),
            image("abcdef02", &["localhost:5000/app:2"], &[]),
            image("ffffff", &[], &[]),
        ];
        let found =
            |text: &str| find(images.iter(), text).map(|image| image.id.hex()[..8].to_owned());
        let first = Some("abcdef01".to_owned());
        let id = images[0].id.to_string();
        let with_tag = format!("busybox:ignored@{digest}");
        for text in [
            &id,
            &id[7..],
            "abcdef01",
            "sha256:abcdef01",
            "busybox:1",
            "docker.io/library/busybox:1",
            &by_digest,
            &format!("busybox@{digest}"),
            &with_tag,
        ] {
            assert_eq!(found(text), first, "{text}");
        }
        for text in
            ["abcdef", "abc", "busybox", "busybox:2", "", "sha256:", &format!("other@{digest}")]
        {
            assert_eq!(found(text), None, "{text}");
        }
        assert_eq!(found("ffffff"), Some("ffffff00".into()));
    }
}
