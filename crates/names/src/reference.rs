//! Image references, read as Docker and containerd read them: `busybox` means
//! `docker.io/library/busybox:latest`. Which server a registry's name leads to is not decided here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The longest repository path that the distribution specification allows.
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

/// A text was not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {why}")]
pub struct BadReference {
    text: String,
    why: &'static str,
}

/// A whole image reference. It has a tag, or a digest, or both; a digest wins over a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// The registry's name, with its port if one was given: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and path: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn wanted(&self) -> &str {
        let digest = self.digest.as_ref().map(Digest::as_str);
        digest.or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// The same repository, by digest alone: what CRI calls a repo digest.
    pub fn with_digest(&self, digest: Digest) -> ImageRef {
        ImageRef { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for ImageRef {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        parse(text).map_err(|why| BadReference { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<ImageRef, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse().map_err(|_| "its digest is not sha256: and 64 hex digits")?))
        }
        None => (text, None),
    };
    let (name, tag) = split_tag(rest)?;
    if is_id(name) || (name == "sha256" && tag.is_some_and(is_id)) {
        return Err("64 hex digits are an image's id, and no name");
    }
    let (registry, path) = split_registry(name);
    check_registry(registry)?;
    let path = match (registry, path.contains('/')) {
        (DEFAULT_REGISTRY, false) => format!("library/{path}"),
        _ => path.to_owned(),
    };
    check_path(&path)?;
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(ImageRef { registry: registry.to_owned(), path, tag, digest })
}

/// Docker refuses such a name, so that an id never means another image's tag.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A colon after the last slash begins a tag; one before it is a port's.
fn split_tag(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let after_slash = text.rfind('/').map_or(0, |at| at + 1);
    let Some(colon) = text[after_slash..].find(':').map(|at| after_slash + at) else {
        return Ok((text, None));
    };
    let tag = &text[colon + 1..];
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.len() <= LONGEST_TAG;
    if good { Ok((&text[..colon], Some(tag))) } else { Err("its tag has a character it must not") }
}

/// The first part is a registry if it could not be a Docker Hub user: it has a dot or a port, is
/// `localhost`, or has an upper-case letter.
fn split_registry(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_REGISTRY, name);
    };
    let host = first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase());
    match first {
        "index.docker.io" => (DEFAULT_REGISTRY, rest),
        _ if host => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    if let Some(rest) = registry.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("its registry lacks a closing bracket")?;
        let good =
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return if good { check_port(port) } else { Err("its registry is not an IPv6 address") };
    }
    let colon = registry.find(':').unwrap_or(registry.len());
    let (host, port) = registry.split_at(colon);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if !host.split('.').all(label) {
        return Err("its registry is not a host name");
    }
    check_port(port)
}

fn check_port(port: &str) -> Result<(), &'static str> {
    let is_number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if is_number(digits) => Ok(()),
        _ => Err("its registry's port is not a number up to 65535"),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > LONGEST_PATH {
        return Err("its repository is empty or longer than 255 characters");
    }
    if path.split('/').all(is_component) {
        return Ok(());
    }
    Err("its repository must be lowercase letters and digits, joined by '.', '_', '__', '-' or '/'")
}

/// Runs of lowercase letters and digits, joined by one dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().is_some_and(|b| alnum(*b)) && bytes.last().is_some_and(|b| alnum(*b));
    edges
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

impl TryFrom<String> for ImageRef {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> String {
        reference.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> String {
        text.parse::<ImageRef>().unwrap().to_string()
    }

    #[test]
    fn short_references_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(whole("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(whole("user/app:1"), "docker.io/user/app:1");
        assert_eq!(whole("index.docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(whole("localhost/x"), "localhost/x:latest");
        assert_eq!(whole("localhost:5000/a/b:c"), "localhost:5000/a/b:c");
        assert_eq!(whole("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(whole(&format!("quay.io/a/b@{digest}")), format!("quay.io/a/b@{digest}"));
        assert_eq!(whole(&format!("a:1@{digest}")), format!("docker.io/library/a:1@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            "UPPER/case/X",
            "a//b",
            "a:b:c",
            "a@sha256:12",
            "../x",
            "a/../b",
            "a b",
            "a:",
            "-a",
            "host.io/",
            "localhost:+80/a",
            &"ab".repeat(32),
            &format!("sha256:{}", "ab".repeat(32)),
            &"a".repeat(250),
            "host.io:99999/a",
            "a___b",
            &"a".repeat(300),
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_reads_back_as_itself(text in "\\PC{0,60}") {
            if let Ok(reference) = text.parse::<ImageRef>() {
                prop_assert_eq!(reference.to_string().parse::<ImageRef>().unwrap(), reference);
            }
        }

        #[test]
        fn a_whole_reference_round_trips(path in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", tag in "[A-Za-z0-9_.-]{0,9}") {
            let text = format!("r.io/{path}:v{tag}");
            prop_assert_eq!(whole(&text), text);
        }
    }
}
