//! Images made on the spot: of a few files, or of a directory of the host.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Seek},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use names::{Digest, ImageRef};
use serde_json::json;
use sys::beneath;
use tar::{Builder, EntryType, Header};

use super::{
    bad,
    packed::{Body, Packed},
    spool,
    tree::{self, Manner},
};
use crate::{
    ImageConfig, ImageId, Images, config,
    error::{At, Error},
    manifest::{self, Descriptor},
    pull::blocking,
    store::Store,
    unpack::Within,
};

/// A file of an image that is made here.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// From the image's root, with or without a slash before it.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    pub kind: NewKind,
}

/// What a file of an image that is made here is.
#[derive(Clone, Debug)]
pub enum NewKind {
    Regular(Vec<u8>),
    Directory,
    /// One more name of an earlier file of the list.
    Link(PathBuf),
}

impl From<(PathBuf, Vec<u8>, u32)> for NewFile {
    fn from((path, contents, mode): (PathBuf, Vec<u8>, u32)) -> Self {
        Self { path, mode, kind: NewKind::Regular(contents) }
    }
}

impl Images {
    /// Makes an image of one layer with these files. They belong to root; directories on the way
    /// are made. Where `config` does not say, it is for this host.
    pub async fn make(
        &self,
        reference: &ImageRef,
        files: impl IntoIterator<Item = impl Into<NewFile>>,
        config: ImageConfig,
    ) -> Result<ImageId, Error> {
        let files: Vec<NewFile> = files.into_iter().map(Into::into).collect();
        self.make_by(reference, config, move |to, root| write_files(to, root, &files)).await
    }

    /// Makes an image of one layer with all that is in a directory of the host.
    pub async fn make_from_dir(
        &self,
        reference: &ImageRef,
        dir: &Path,
        config: ImageConfig,
    ) -> Result<ImageId, Error> {
        let dir = dir.to_owned();
        let manner = Manner { root: true, ..Manner::default() };
        self.make_by(reference, config, move |to, _| {
            let root = beneath::open_root(&dir).at("opening", &dir)?;
            tree::write(root, to, &manner).at("reading", &dir)
        })
        .await
    }

    async fn make_by(
        &self,
        reference: &ImageRef,
        config: ImageConfig,
        write: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<(), Error> + Send + 'static,
    ) -> Result<ImageId, Error> {
        if reference.digest().is_some() {
            return Err(bad("an image that is made here is named by a tag, not by a digest"));
        }
        let store = Arc::clone(&self.0.store);
        let (packed, top) = blocking(move || pack(&store, config, write)).await?;
        let image = self.take(Arc::new(packed), &top, vec![reference.clone()]).await?;
        Ok(image.id.clone())
    }
}

fn pack(
    store: &Arc<Store>,
    mut config: ImageConfig,
    write: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<(), Error>,
) -> Result<(Packed, Descriptor), Error> {
    let scratch = store.scratch()?;
    let mut writer = BufWriter::new(spool(&scratch)?);
    write(&mut writer, store.root())?;
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error);
    let mut file = file.at("writing beneath", store.root())?;
    let size = file.stream_position().at("writing beneath", store.root())?;
    let file = Arc::new(file);
    let body = Body::File { file, offset: 0, size };
    let diff = body.digest().at("reading beneath", store.root())?;
    let host = manifest::host();
    for (field, own) in [(&mut config.architecture, host.architecture), (&mut config.os, host.os)] {
        if field.is_empty() {
            *field = own;
        }
    }
    let mut packed = Packed::default();
    packed.add(diff.clone(), body);
    let text = config::write(&config, std::slice::from_ref(&diff));
    let top = packed.seal(text, &[(diff, size)]);
    Ok((packed, top))
}

impl Packed {
    /// Adds a config and a manifest that brings it and these layers together.
    pub fn seal(&mut self, config: Vec<u8>, layers: &[(Digest, u64)]) -> Descriptor {
        let (config, size) = self.add_bytes(config);
        let layers: Vec<_> = layers
            .iter()
            .map(|(digest, size)| {
                json!({ "mediaType": manifest::OCI_LAYER, "digest": digest, "size": size })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest::OCI_MANIFEST,
            "config": { "mediaType": manifest::OCI_CONFIG, "digest": config, "size": size },
            "layers": layers,
        });
        let (digest, size) = self.add_bytes(manifest.to_string().into_bytes());
        Descriptor::new(manifest::OCI_MANIFEST, digest, size)
    }
}

fn write_files(to: &mut BufWriter<File>, root: &Path, files: &[NewFile]) -> Result<(), Error> {
    let within = |path: &Path| {
        let clean = Within::parse(path.as_os_str().as_bytes());
        clean.map_err(|why| bad(format!("{}: {why}", path.display())))
    };
    let paths = files.iter().map(|file| within(&file.path)).collect::<Result<Vec<_>, _>>()?;
    let write = || {
        let mut archive = Builder::new(to);
        let mut made = BTreeSet::new();
        for (path, file) in paths.iter().zip(files) {
            let mut above = Within::default();
            for name in path.parent().names() {
                above = above.join(name);
                if made.insert(above.clone()) {
                    append(&mut archive, EntryType::Directory, &above, 0o755, &[])?;
                }
            }
            match &file.kind {
                NewKind::Regular(contents) => {
                    append(&mut archive, EntryType::Regular, path, file.mode, contents)?;
                }
                NewKind::Directory if made.insert(path.clone()) => {
                    append(&mut archive, EntryType::Directory, path, file.mode, &[])?;
                }
                NewKind::Directory => {}
                NewKind::Link(target) => append_link(&mut archive, path, target)?,
            }
        }
        archive.finish()
    };
    write().at("writing beneath", root)
}

fn append_link<W: std::io::Write>(
    archive: &mut Builder<W>,
    path: &Within,
    target: &Path,
) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Link);
    header.set_mode(0o755);
    header.set_size(0);
    let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    archive.append_link(&mut header, path, target.strip_prefix("/").unwrap_or(target))
}

fn append<W: std::io::Write>(
    archive: &mut Builder<W>,
    kind: EntryType,
    path: &Within,
    mode: u32,
    contents: &[u8],
) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(contents.len() as u64);
    let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    archive.append_data(&mut header, path, contents)
}
