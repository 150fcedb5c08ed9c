//! Saving an image as an OCI image layout in a tar archive. No blob of it was kept, so its layers
//! are packed anew: the archive's image has the same contents and another id.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use names::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sys::beneath;
use tar::{Builder, EntryType, Header};

use super::{
    bad, spool,
    tree::{self, Manner},
};
use crate::{
    Images,
    error::{At, Error},
    image::Image,
    manifest,
    pull::blocking,
    store::{FILES, Store},
};

impl Images {
    /// Writes an image, found by any of its names, as an OCI archive.
    pub async fn save(&self, text: &str, out: impl Write + Send + 'static) -> Result<(), Error> {
        let (store, text) = (Arc::clone(&self.0.store), text.to_owned());
        let path = self.archive_path();
        blocking(move || {
            let image = store.find(&text).ok_or(Error::NoSuchImage(text))?;
            Saving { store: &store, path: &path, to: Builder::new(out) }.image(&image)
        })
        .await
    }
}

struct Saving<'a, W: Write> {
    store: &'a Arc<Store>,
    path: &'a Path,
    to: Builder<W>,
}

impl<W: Write> Saving<'_, W> {
    fn image(mut self, image: &Image) -> Result<(), Error> {
        let _holds: Vec<_> = image.layers.iter().map(|diff| self.store.hold(diff).0).collect();
        self.member("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut layers = Vec::new();
        for diff in &image.layers {
            layers.push(self.layer(diff)?);
        }
        let diffs = layers.iter().map(|layer| &layer["digest"]).cloned().collect();
        let config = config(image.config_text(), diffs)?;
        let config = self.blob(manifest::OCI_CONFIG, config.as_bytes())?;
        let whole = json!({
            "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST,
            "config": config, "layers": layers,
        });
        let mut top = self.blob(manifest::OCI_MANIFEST, whole.to_string().as_bytes())?;
        let tops: Vec<Value> = match image.tags.is_empty() {
            true => vec![top],
            false => image
                .tags
                .iter()
                .map(|tag| {
                    let name = tag.to_string();
                    top["annotations"] = json!({
                        "io.containerd.image.name": name,
                        "org.opencontainers.image.ref.name": name,
                    });
                    top.clone()
                })
                .collect(),
        };
        let index = json!({
            "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": tops,
        });
        self.member("index.json", index.to_string().as_bytes())?;
        let end = self.to.into_inner().and_then(|mut out| out.flush());
        end.at("writing an archive of", self.path)
    }

    fn layer(&mut self, diff: &Digest) -> Result<Value, Error> {
        let gone = || bad(format!("the layer {diff} is gone"));
        let layer = self.store.layer(diff).ok_or_else(gone)?;
        let scratch = self.store.scratch()?;
        let manner = Manner {
            root: layer.has_root,
            implied: layer
                .implied
                .iter()
                .map(|path| path.clone().into_bytes())
                .collect::<BTreeSet<_>>(),
            hides_all: layer.hides_all,
            whiteouts: true,
        };
        let name = format!("{}/{FILES}", diff.hex());
        let packed = || -> io::Result<(Hashed, u64)> {
            let root = beneath::open_listable(&self.store.dirs.layers, name.as_bytes())?;
            let file = spool(&scratch).map_err(io::Error::other)?;
            let mut hashed = Hashed { file, hash: Sha256::new() };
            let mut to = BufWriter::with_capacity(1 << 20, &mut hashed);
            tree::write(root, &mut to, &manner)?;
            drop(to);
            let size = hashed.file.stream_position()?;
            hashed.file.seek(SeekFrom::Start(0))?;
            Ok((hashed, size))
        };
        let (hashed, size) = packed().at("packing a layer beneath", self.path)?;
        let digest = Digest::from_sha256(hashed.hash.finalize().into());
        self.append(&blob(&digest), size, hashed.file)?;
        Ok(json!({ "mediaType": manifest::OCI_LAYER, "digest": digest, "size": size }))
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Result<Value, Error> {
        let digest = Digest::from_sha256(Sha256::digest(bytes).into());
        self.member(&blob(&digest), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.append(name, bytes.len() as u64, bytes)
    }

    fn append(&mut self, name: &str, size: u64, contents: impl Read) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        self.to.append_data(&mut header, name, contents).at("writing an archive of", self.path)
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A config with other diff ids, and all else as it was.
fn config(text: &str, diffs: Vec<Value>) -> Result<String, Error> {
    let mut config: Value = serde_json::from_str(text).map_err(|why| bad(why.to_string()))?;
    config["rootfs"]["diff_ids"] = Value::Array(diffs);
    Ok(config.to_string())
}

/// A file that is hashed while it is written.
struct Hashed {
    file: File,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
