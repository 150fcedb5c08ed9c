//! Manifests and indexes: what they name is parsed, what is ambiguous in them is refused. Nothing is
//! fetched here.

use names::Digest;
use serde::Deserialize;

/// The largest manifest or index that is read, in bytes.
pub const LARGEST: usize = 4 << 20;
/// The most layers that overlayfs stacks.
pub const MOST_LAYERS: usize = 500;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYERS: [&str; 6] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What names a blob or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    /// One that says no more than it must.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        let media_type = media_type.to_owned();
        Descriptor { media_type, digest, size, platform: None, annotations: None, urls: None }
    }
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub variant: String,
}

/// A parsed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub config: Descriptor,
    /// From the bottom up.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a document that was said to be of `media_type`; `""` if nothing was said.
pub fn parse(bytes: &[u8], media_type: &str) -> Result<Document, String> {
    if bytes.len() > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes"));
    }
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.fs_layers.is_some() || file.schema_version != 2 {
        return Err("it is of schema 1, which nobody can verify: push the image anew".into());
    }
    let own = file.media_type.as_deref().unwrap_or_default();
    if !own.is_empty() && !media_type.is_empty() && own != media_type {
        return Err(format!("it came as {media_type:?} and says that it is {own:?}"));
    }
    let said = if own.is_empty() { media_type } else { own };
    match (file.config, file.layers, file.manifests) {
        (None, None, Some(manifests)) => index(said, manifests),
        (Some(config), layers, None) => manifest(said, config, layers.unwrap_or_default()),
        _ => Err("it must have either a config and layers, or manifests (CVE-2021-41190)".into()),
    }
}

fn index(said: &str, manifests: Vec<Descriptor>) -> Result<Document, String> {
    if !matches!(said, "" | OCI_INDEX | DOCKER_LIST) {
        return Err(format!("it is an index and says that it is {said:?}"));
    }
    Ok(Document::Index(manifests))
}

fn manifest(said: &str, config: Descriptor, layers: Vec<Descriptor>) -> Result<Document, String> {
    if !matches!(said, "" | OCI_MANIFEST | DOCKER_MANIFEST) {
        return Err(format!("it is a manifest and says that it is {said:?}"));
    }
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        return Err(format!("it is no container image but {:?}", config.media_type));
    }
    if layers.len() > MOST_LAYERS {
        return Err(format!("it has {} layers; {MOST_LAYERS} can be mounted", layers.len()));
    }
    for layer in &layers {
        if layer.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            return Err(format!("its layer {} is to be had elsewhere", layer.digest));
        }
        if !LAYERS.contains(&layer.media_type.as_str()) {
            return Err(format!("its layer {} is of type {:?}", layer.digest, layer.media_type));
        }
    }
    Ok(Document::Manifest(Manifest { config, layers }))
}

/// The host's platform, as images name it.
pub fn host() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "x86" => ("386", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", ""),
        "loongarch64" => ("loong64", ""),
        other => (other, ""),
    };
    Platform { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }
}

/// The manifest of an index that suits a host best; the first of those that suit equally.
pub fn choose<'a>(manifests: &'a [Descriptor], host: &Platform) -> Option<&'a Descriptor> {
    let best = manifests
        .iter()
        .filter_map(|descriptor| {
            let platform = descriptor.platform.as_ref()?;
            Some((suits(platform, host)?, descriptor))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, descriptor)| descriptor);
    match manifests {
        // What some builders make of a single manifest.
        [only] if only.platform.is_none() => Some(only),
        _ => best,
    }
}

/// How far a platform is from the host's; `None` if it does not run there. Of 32-bit ARM the host
/// runs what is older; of the others only the first variant is sure to run.
fn suits(platform: &Platform, host: &Platform) -> Option<u32> {
    if platform.os != host.os || platform.architecture != host.architecture {
        return None;
    }
    let version = |variant: &str| variant.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
    match (host.architecture.as_str(), platform.variant.as_str()) {
        (_, variant) if variant == host.variant => Some(0),
        (_, "") => Some(1),
        ("arm", variant) => {
            let (own, other) = (version(&host.variant)?, version(variant)?);
            own.checked_sub(other).map(|older| older + 1)
        }
        ("amd64", "v1") => Some(0),
        _ => None,
    }
}

/// The platforms of an index, for a message.
pub fn offered(manifests: &[Descriptor]) -> String {
    let names: Vec<String> = manifests
        .iter()
        .filter_map(|descriptor| descriptor.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .take(20)
        .collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn descriptor(media_type: &str) -> Value {
        let digest = format!("sha256:{}", "ab".repeat(32));
        json!({ "mediaType": media_type, "digest": digest, "size": 7 })
    }

    fn whole() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG), "layers": [descriptor(OCI_LAYER)],
        })
    }

    fn read(value: &Value) -> Result<Document, String> {
        parse(value.to_string().as_bytes(), OCI_MANIFEST)
    }

    #[test]
    fn a_manifest_is_read() {
        assert!(matches!(read(&whole()), Ok(Document::Manifest(m)) if m.layers.len() == 1));
    }

    #[test]
    fn an_ambiguous_or_unusable_manifest_is_refused() {
        let change = |pointer: &str, value: Value| {
            let mut manifest = whole();
            match manifest.pointer_mut(pointer) {
                Some(slot) => *slot = value,
                None => manifest[&pointer[1..]] = value,
            }
            manifest
        };
        let many = vec![descriptor(OCI_LAYER); MOST_LAYERS + 1];
        let mut foreign = descriptor(OCI_LAYER);
        foreign["urls"] = json!(["https://elsewhere.example"]);
        for (what, bad) in [
            ("both", change("/manifests", json!([]))),
            ("another type", change("/mediaType", json!(OCI_INDEX))),
            ("schema 1", change("/schemaVersion", json!(1))),
            ("fsLayers", change("/fsLayers", json!([]))),
            ("an artifact", change("/config/mediaType", json!("application/vnd.cncf.helm"))),
            ("too many layers", change("/layers", json!(many))),
            ("a foreign layer", change("/layers", json!([foreign]))),
            (
                "an encrypted layer",
                change("/layers/0/mediaType", json!(format!("{OCI_LAYER}+encrypted"))),
            ),
            ("a path for a digest", change("/config/digest", json!("sha256:../../x"))),
            ("a negative size", change("/config/size", json!(-1))),
            ("no config", change("/config", json!(null))),
        ] {
            assert!(read(&bad).is_err(), "{what}");
        }
        let index = json!({ "schemaVersion": 2, "manifests": [] }).to_string();
        assert!(parse(index.as_bytes(), OCI_MANIFEST).is_err(), "an index that came as a manifest");
        assert!(parse(index.as_bytes(), OCI_INDEX).is_ok());
        assert!(parse(&vec![b' '; LARGEST + 1], "").is_err());
    }

    fn on(platform: &str) -> Descriptor {
        let mut parts = platform.split('/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (os, architecture, variant) = (part(), part(), part());
        let mut descriptor: Descriptor = serde_json::from_value(descriptor(OCI_MANIFEST)).unwrap();
        descriptor.platform = Some(Platform { os, architecture, variant });
        descriptor
    }

    fn chosen(offered: &[&str], host: &str) -> Option<String> {
        let manifests: Vec<_> = offered.iter().map(|platform| on(platform)).collect();
        let host = on(host).platform.unwrap();
        choose(&manifests, &host).map(|d| d.platform.as_ref().unwrap().to_string())
    }

    #[test]
    fn the_platform_that_suits_best_is_chosen() {
        let some = |text: &str| Some(text.to_owned());
        let amd64 = "linux/amd64";
        assert_eq!(chosen(&["linux/arm64/v8", amd64, "unknown/unknown"], amd64), some(amd64));
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64/v1"], amd64), some("linux/amd64/v1"));
        assert_eq!(chosen(&["linux/amd64/v3", "windows/amd64"], amd64), None);
        assert_eq!(chosen(&["linux/arm64"], "linux/arm64/v8"), some("linux/arm64"));
        let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"];
        assert_eq!(chosen(&arm, "linux/arm/v7"), some("linux/arm/v6"));
        assert_eq!(chosen(&["linux/arm/v7"], "linux/arm/v6"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, "");
        }
    }
}
