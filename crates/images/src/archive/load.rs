//! Loading images from archives: OCI image layouts, and what `docker save` writes. All in them is
//! verified as if it were pulled.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use names::ImageRef;
use serde::Deserialize;

use super::{
    bad,
    packed::{Body, Packed},
    spooled,
};
use crate::{
    Images, config,
    error::{At, Error},
    image::Image,
    manifest::{self, Descriptor, Document},
    pull::blocking,
    store::Store,
    unpack::{Fault, Kind, Tape, Within},
};

/// The most members that an archive of images may have.
const MOST_MEMBERS: usize = 100_000;
/// The most images in one archive.
const MOST_IMAGES: usize = 1000;
/// Annotations that say what an image is called; the first that does is believed.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An image of an archive, and what it will be called.
type Named = (Descriptor, Vec<ImageRef>);

impl Images {
    /// Loads all images for this host from an archive: an OCI image layout or what `docker save`
    /// writes, compressed or not. Gives them back; one without a name has only its id.
    pub async fn load(&self, path: &Path) -> Result<Vec<Arc<Image>>, Error> {
        let (store, path) = (Arc::clone(&self.0.store), path.to_owned());
        let most = self.0.limits.bytes;
        let (packed, named) = blocking(move || {
            let file = File::open(&path).at("opening", &path)?;
            open(&store, file, most)
        })
        .await?;
        self.take_all(packed, named).await
    }

    /// The same from a reader, by way of a file of ours.
    pub async fn load_from(
        &self,
        mut reader: impl Read + Send + 'static,
    ) -> Result<Vec<Arc<Image>>, Error> {
        let (store, most) = (Arc::clone(&self.0.store), self.0.limits.bytes);
        let (packed, named) = blocking(move || {
            let scratch = store.scratch()?;
            let file = spooled(&scratch, &mut reader, most)?;
            open(&store, file, most)
        })
        .await?;
        self.take_all(packed, named).await
    }

    async fn take_all(&self, packed: Packed, named: Vec<Named>) -> Result<Vec<Arc<Image>>, Error> {
        let packed = Arc::new(packed);
        let mut images = Vec::new();
        for (descriptor, tags) in named {
            images.push(self.take(Arc::clone(&packed), &descriptor, tags).await?);
        }
        Ok(images)
    }
}

/// Reads what is in an archive. Blocks.
fn open(store: &Arc<Store>, file: File, most: u64) -> Result<(Packed, Vec<Named>), Error> {
    let scratch = store.scratch()?;
    let file = Arc::new(plain(file, &scratch, most)?);
    let members = members(&file)?;
    let mut packed = Packed::default();
    let named = if members.contains_key(b"index.json".as_slice()) {
        layout(&members, &mut packed)?
    } else if members.contains_key(b"manifest.json".as_slice()) {
        docker(&members, &mut packed)?
    } else {
        return Err(bad("it has neither an index.json nor a manifest.json"));
    };
    if named.is_empty() {
        return Err(bad(format!("nothing in it is made for {}", manifest::host())));
    }
    Ok((packed, named))
}

/// An archive that is not compressed, to be read at any place.
fn plain(mut file: File, scratch: &crate::store::Scratch, most: u64) -> Result<File, Error> {
    let unreadable =
        |source| Error::BadArchive { why: "it cannot be read".into(), source: Some(source) };
    let mut magic = [0; 4];
    let length = file.read(&mut magic).map_err(unreadable)?;
    let seekable = file.seek(SeekFrom::Start(0)).is_ok();
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let zstd = magic == [0x28, 0xb5, 0x2f, 0xfd];
    if seekable && !gzip && !zstd {
        return Ok(file);
    }
    let rest: Box<dyn Read> = match seekable {
        true => Box::new(file),
        false => Box::new(io::Cursor::new(magic).take(length as u64).chain(file)),
    };
    let mut reader = crate::layer::decompressed(rest).map_err(unreadable)?;
    spooled(scratch, &mut reader, most)
}

/// Counts what is read through it.
struct Counted<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.at += length as u64;
        Ok(length)
    }
}

type Members = HashMap<Vec<u8>, Body>;

/// Where each file of an archive is.
fn members(file: &Arc<File>) -> Result<Members, Error> {
    let mut members = Members::new();
    let mut links = Vec::new();
    let reader = BufReader::with_capacity(1 << 20, file.as_ref());
    let mut tape = Tape::new(Counted { reader, at: 0 });
    while let Some(member) = tape.member().map_err(malformed)? {
        if members.len() + links.len() >= MOST_MEMBERS {
            return Err(bad(format!("it has more than {MOST_MEMBERS} members")));
        }
        let path = Within::parse(&member.path).map_err(bad)?;
        match member.kind {
            Kind::File if member.pieces.len() > 1 => return Err(bad("a blob in it is sparse")),
            Kind::File => {
                let (offset, size) = (tape.get_ref().at, member.size);
                let body = Body::File { file: Arc::clone(file), offset, size };
                members.insert(path.as_bytes().to_vec(), body);
            }
            Kind::Symlink(target) => links.push((path.clone(), beside(&path, &target))),
            Kind::HardLink(target) => links.push((path, target)),
            _ => {}
        }
    }
    for (path, target) in links {
        let target = Within::parse(&target).map_err(bad)?;
        if let Some(body) = members.get(target.as_bytes()).cloned() {
            members.insert(path.as_bytes().to_vec(), body);
        }
    }
    Ok(members)
}

/// The target of a symbolic link, by names alone: `../other/layer.tar` as docker writes it.
fn beside(path: &Within, target: &[u8]) -> Vec<u8> {
    let mut at = path.parent();
    for name in target.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => at = at.parent(),
            _ => at = at.join(name),
        }
    }
    at.as_bytes().to_vec()
}

fn malformed(fault: Fault) -> Error {
    match fault {
        Fault::Read(source) => {
            Error::BadArchive { why: "it cannot be read".into(), source: Some(source) }
        }
        other => bad(other.to_string()),
    }
}

/// A small member, whole.
fn small(members: &Members, name: &[u8], most: u64) -> Result<Vec<u8>, Error> {
    let missing = || bad(format!("it has no {}", name.escape_ascii()));
    match members.get(name).ok_or_else(missing)? {
        Body::File { size, .. } if *size > most => {
            Err(bad(format!("its {} has more than {most} bytes", name.escape_ascii())))
        }
        Body::File { file, offset, size } => {
            use std::os::unix::fs::FileExt;
            let mut bytes = vec![0; usize::try_from(*size).unwrap_or(0)];
            let read = file.read_exact_at(&mut bytes, *offset);
            read.map_err(|source| malformed(Fault::Read(source)))?;
            Ok(bytes)
        }
        Body::Memory(bytes) => Ok(bytes.to_vec()),
    }
}

/// The images of an OCI image layout.
fn layout(members: &Members, packed: &mut Packed) -> Result<Vec<Named>, Error> {
    let index = small(members, b"index.json", manifest::LARGEST as u64)?;
    let document = manifest::parse(&index, manifest::OCI_INDEX);
    let Document::Index(manifests) = document.map_err(bad)? else {
        return Err(bad("its index.json is no index"));
    };
    for (path, body) in members {
        let hex = path.strip_prefix(b"blobs/sha256/").and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(digest) = hex.and_then(|hex| format!("sha256:{hex}").parse().ok()) {
            packed.add(digest, body.clone());
        }
    }
    let host = manifest::host();
    let ours = |descriptor: &Descriptor| {
        let only = std::slice::from_ref(descriptor);
        descriptor.platform.is_none() || manifest::choose(only, &host).is_some()
    };
    let named = |descriptor: Descriptor| {
        let tags = annotated(&descriptor).into_iter().collect();
        (descriptor, tags)
    };
    Ok(manifests.into_iter().filter(ours).take(MOST_IMAGES).map(named).collect())
}

/// What an annotation calls an image. Some builders write a bare tag there, which names nothing.
fn annotated(descriptor: &Descriptor) -> Option<ImageRef> {
    let annotations = descriptor.annotations.as_ref()?;
    let name = NAMES.iter().find_map(|name| annotations.get(*name))?;
    let whole = name.contains([':', '/']);
    whole.then(|| name.parse().ok()).flatten().filter(|name: &ImageRef| name.digest().is_none())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of what `docker save` writes, which has no manifests: they are made here.
fn docker(members: &Members, packed: &mut Packed) -> Result<Vec<Named>, Error> {
    let manifest = small(members, b"manifest.json", manifest::LARGEST as u64)?;
    let saved: Vec<Saved> = serde_json::from_slice(&manifest)
        .map_err(|why| bad(format!("its manifest.json: {why}")))?;
    if saved.len() > MOST_IMAGES {
        return Err(bad(format!("it has more than {MOST_IMAGES} images")));
    }
    saved.into_iter().map(|image| docker_image(members, packed, image)).collect()
}

fn docker_image(members: &Members, packed: &mut Packed, saved: Saved) -> Result<Named, Error> {
    let name = |name: &str| Within::parse(name.as_bytes()).map_err(bad);
    let config = small(members, name(&saved.config)?.as_bytes(), config::LARGEST)?;
    let mut layers = Vec::new();
    if saved.layers.len() > manifest::MOST_LAYERS {
        return Err(bad(format!("an image in it has {} layers", saved.layers.len())));
    }
    for layer in &saved.layers {
        let path = name(layer)?;
        let body = members.get(path.as_bytes()).ok_or_else(|| bad(format!("it has no {layer}")))?;
        let digest = body.digest().map_err(|source| malformed(Fault::Read(source)))?;
        layers.push((digest.clone(), body.size()));
        packed.add(digest, body.clone());
    }
    let tags = saved.repo_tags.unwrap_or_default();
    let tags = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<ImageRef>, _>>()?;
    if tags.iter().any(|tag| tag.digest().is_some()) {
        return Err(bad("one of its tags is a digest"));
    }
    Ok((packed.seal(config, &layers), tags))
}
