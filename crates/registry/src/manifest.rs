//! What a manifest must be to be handed on: of its digest, of a known type, of one type only.

use bytes::Bytes;
use hyper::header::HeaderValue;
use names::Digest;
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};

use crate::{error::Error, fault::Fault};

/// No manifest is larger, in bytes (OCI distribution specification, "Pushing Manifests").
pub const LARGEST: u64 = 4 * 1024 * 1024;

pub(crate) const ACCEPT: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json",
);

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEXES: [&str; 2] = [OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] = [OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];

/// A manifest or an index of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Of `bytes`.
    pub digest: Digest,
    /// One of Docker's or OCI's four.
    pub media_type: String,
    /// At most `LARGEST_MANIFEST`.
    pub bytes: Bytes,
}

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Tag(String),
    Digest(Digest),
}

impl Wanted {
    /// Anything but a digest or a tag could be a path (CVE-2024-3727).
    pub(crate) fn parse(text: &str) -> Result<Wanted, Error> {
        if let Ok(digest) = text.parse() {
            return Ok(Wanted::Digest(digest));
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good = text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
            && text.len() <= 128;
        if good { Ok(Wanted::Tag(text.to_owned())) } else { Err(Error::BadName(text.to_owned())) }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Wanted::Tag(tag) => tag,
            Wanted::Digest(digest) => digest.as_str(),
        }
    }

    /// Joined to a repository, as people write it.
    pub(crate) fn of(&self, repository: &str) -> String {
        match self {
            Wanted::Tag(tag) => format!("{repository}:{tag}"),
            Wanted::Digest(digest) => format!("{repository}@{digest}"),
        }
    }
}

/// The bytes as a manifest, if they are what was asked for. `claimed` is `Docker-Content-Digest`.
pub(crate) fn check(
    wanted: &Wanted,
    content_type: Option<&str>,
    claimed: Option<&str>,
    bytes: Bytes,
) -> Result<Fetched, Fault> {
    let digest = Digest::from_sha256(Sha256::digest(&bytes).into());
    // A digest by another algorithm cannot be checked, and says nothing against these bytes.
    let claimed = claimed.and_then(|claimed| claimed.parse::<Digest>().ok());
    let due = match wanted {
        Wanted::Digest(digest) => Some(digest),
        Wanted::Tag(_) => claimed.as_ref(),
    };
    if due.is_some_and(|due| *due != digest) {
        return Err(Fault::Digest { got: digest.to_string() });
    }
    let media_type = media_type(content_type, &bytes)?;
    Ok(Fetched { digest, media_type, bytes })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: u64,
    media_type: Option<String>,
    manifests: Option<Vec<IgnoredAny>>,
    config: Option<IgnoredAny>,
    layers: Option<Vec<IgnoredAny>>,
}

/// The one type that header and body agree upon (CVE-2021-41190 is about those that do not).
fn media_type(content_type: Option<&str>, bytes: &[u8]) -> Result<String, Fault> {
    let header = content_type.map(essence).filter(|essence| is_specific(essence));
    if header
        .as_deref()
        .is_some_and(|t| t.starts_with("application/vnd.docker.distribution.manifest.v1+"))
    {
        return Err(Fault::OldSchema);
    }
    if let Some(other) = header.as_ref().filter(|t| !is_known(t)) {
        return Err(Fault::Protocol(format!("{other:?} is not the type of a manifest")));
    }
    let outline: Outline =
        serde_json::from_slice(bytes).map_err(|_| protocol("it is not a manifest in JSON"))?;
    if outline.schema_version == 1 {
        return Err(Fault::OldSchema);
    }
    let shape = outline.shape()?;
    let named = match (header, outline.media_type) {
        (Some(header), Some(body)) if header != body => {
            return Err(protocol("its type in the header is not its type in the body"));
        }
        (header, body) => header.or(body).unwrap_or_else(|| shape[0].to_owned()),
    };
    if shape.contains(&named.as_str()) {
        Ok(named)
    } else {
        Err(protocol("its content is not of its type"))
    }
}

impl Outline {
    /// The types that it can be of, by its fields.
    fn shape(&self) -> Result<&'static [&'static str; 2], Fault> {
        let image = self.config.is_some() || self.layers.is_some();
        match (self.schema_version, self.manifests.is_some(), image) {
            (2, true, false) => Ok(&INDEXES),
            (2, false, _) if self.config.is_some() && self.layers.is_some() => Ok(&MANIFESTS),
            (2, true, true) => Err(protocol("it is both a manifest and an index of manifests")),
            (2, ..) => Err(protocol("it is neither a manifest nor an index of manifests")),
            _ => Err(protocol("its schema version is not 2")),
        }
    }
}

fn protocol(why: &'static str) -> Fault {
    Fault::Protocol(why.to_owned())
}

fn is_known(media_type: &str) -> bool {
    INDEXES.contains(&media_type) || MANIFESTS.contains(&media_type)
}

/// Servers of plain files do not know these types.
fn is_specific(media_type: &str) -> bool {
    !matches!(media_type, "" | "application/json" | "application/octet-stream" | "text/plain")
}

/// Without parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

    fn typed(content_type: Option<&str>, body: &str) -> Result<String, Fault> {
        media_type(content_type, body.as_bytes())
    }

    #[test]
    fn a_type_comes_from_the_header_the_body_or_the_shape() {
        let docker = MANIFESTS[1];
        assert_eq!(typed(Some(docker), IMAGE).unwrap(), docker);
        let named = IMAGE.replace("{\"s", &format!("{{\"mediaType\":\"{docker}\",\"s"));
        assert_eq!(typed(Some("application/json; charset=utf-8"), &named).unwrap(), docker);
        assert_eq!(typed(None, IMAGE).unwrap(), OCI_MANIFEST);
        assert_eq!(typed(None, INDEX).unwrap(), OCI_INDEX);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let both = r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#;
        assert!(matches!(typed(None, both), Err(Fault::Protocol(_))));
        let other = IMAGE.replace("{\"s", &format!("{{\"mediaType\":\"{OCI_INDEX}\",\"s"));
        assert!(matches!(typed(Some(OCI_MANIFEST), &other), Err(Fault::Protocol(_))));
        assert!(matches!(typed(Some(OCI_INDEX), IMAGE), Err(Fault::Protocol(_))));
        let twice = r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(typed(None, twice), Err(Fault::Protocol(_))));
    }

    #[test]
    fn a_page_for_people_is_no_manifest() {
        assert!(matches!(typed(Some("text/html"), "<html>"), Err(Fault::Protocol(_))));
        assert!(matches!(typed(None, "<html>"), Err(Fault::Protocol(_))));
    }

    #[test]
    fn dockers_first_schema_is_refused_by_name() {
        let header = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(typed(Some(header), "{}"), Err(Fault::OldSchema)));
        assert!(matches!(typed(None, r#"{"schemaVersion":1}"#), Err(Fault::OldSchema)));
    }

    #[test]
    fn bytes_of_another_digest_are_refused() {
        let bytes = Bytes::from_static(IMAGE.as_bytes());
        let right = Digest::from_sha256(Sha256::digest(&bytes).into());
        let wrong = Digest::from_sha256([7; 32]);
        let tag = Wanted::parse("latest").unwrap();
        let ask = |wanted: &Wanted, claimed| check(wanted, None, claimed, bytes.clone());
        assert!(ask(&Wanted::Digest(right.clone()), None).is_ok());
        assert!(ask(&Wanted::Digest(right), Some(wrong.as_str())).is_ok());
        assert!(matches!(ask(&Wanted::Digest(wrong.clone()), None), Err(Fault::Digest { .. })));
        assert!(matches!(ask(&tag, Some(wrong.as_str())), Err(Fault::Digest { .. })));
        assert!(ask(&tag, Some("sha512:00")).is_ok());
    }

    #[test]
    fn only_a_tag_or_a_digest_can_be_wanted() {
        for bad in ["", "../x", "a/b", "sha256:12", "a b", "-a", &"a".repeat(129), "a?b"] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(content_type in "\\PC{0,40}", body in "\\PC{0,80}") {
            let _ = typed(Some(&content_type), &body);
        }
    }
}
