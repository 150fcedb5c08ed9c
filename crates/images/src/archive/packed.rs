//! Blobs that are here already, in memory or in a file, as a source of images.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use names::{Class, Digest, ImageRef};
use sha2::{Digest as _, Sha256};

use crate::{
    layer::receive_small,
    manifest,
    source::{Auth, Failure, Fetched, Source, Stream},
};

/// How much of a file is read at a time, in bytes.
const CHUNK: u64 = 256 << 10;

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub enum Body {
    Memory(Bytes),
    File { file: Arc<File>, offset: u64, size: u64 },
}

impl Body {
    pub fn size(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File { size, .. } => *size,
        }
    }

    pub fn stream(&self) -> Stream {
        match self {
            Body::Memory(bytes) => stream::iter([Ok(bytes.clone())]).boxed(),
            Body::File { file, offset, size } => pieces(Arc::clone(file), *offset, *size),
        }
    }

    /// Its digest, computed from all of it. Blocks.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut hash = Sha256::new();
        match self {
            Body::Memory(bytes) => hash.update(bytes),
            Body::File { file, offset, size } => {
                let mut at = 0;
                while at < *size {
                    let piece = read_piece(file, offset + at, size - at)?;
                    hash.update(&piece);
                    at += piece.len() as u64;
                }
            }
        }
        Ok(Digest::from_sha256(hash.finalize().into()))
    }
}

fn pieces(file: Arc<File>, offset: u64, size: u64) -> Stream {
    let end = offset + size;
    stream::unfold((file, offset), move |(file, at)| async move {
        if at >= end {
            return None;
        }
        let reader = Arc::clone(&file);
        let piece = tokio::task::spawn_blocking(move || read_piece(&reader, at, end - at)).await;
        let piece = piece.unwrap_or_else(|error| Err(io::Error::other(error)));
        // After an error the stream is at its end.
        let next = piece.as_ref().map_or(end, |piece| at + piece.len() as u64);
        Some((piece, (file, next)))
    })
    .boxed()
}

fn read_piece(file: &File, at: u64, left: u64) -> io::Result<Bytes> {
    let length = usize::try_from(left.min(CHUNK)).unwrap_or(0);
    let mut piece = vec![0; length];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

/// Manifests and blobs by their digests.
#[derive(Debug, Default)]
pub struct Packed {
    blobs: HashMap<Digest, Body>,
}

impl Packed {
    /// Adds a blob under the digest that it is said to have; what is wrong is found when it is read.
    pub fn add(&mut self, digest: Digest, body: Body) {
        self.blobs.insert(digest, body);
    }

    /// Adds bytes under their own digest.
    pub fn add_bytes(&mut self, bytes: Vec<u8>) -> (Digest, u64) {
        let digest = Digest::from_sha256(Sha256::digest(&bytes).into());
        let size = bytes.len() as u64;
        self.add(digest.clone(), Body::Memory(bytes.into()));
        (digest, size)
    }

    fn find(&self, digest: &str) -> Result<(Digest, &Body), Failure> {
        let missing = || Failure::new(Class::InvalidArgument, format!("{digest} is not in it"));
        let digest: Digest = digest.parse().map_err(|_| missing())?;
        let body = self.blobs.get(&digest).ok_or_else(missing)?;
        Ok((digest, body))
    }
}

impl Source for Packed {
    fn manifest<'a>(
        &'a self,
        _image: &'a ImageRef,
        wanted: &'a str,
        _auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Fetched, Failure>> {
        async move {
            let (digest, body) = self.find(wanted)?;
            if body.size() > manifest::LARGEST as u64 {
                return Err(Failure::new(Class::InvalidArgument, "a manifest is too large"));
            }
            let bytes = receive_small("the manifest", &digest, body.size(), body.stream()).await;
            let bytes = bytes.map_err(|error| Failure::new(error.class(), error))?;
            // What it is, is told by itself only.
            Ok(Fetched { digest, media_type: String::new(), bytes: bytes.into() })
        }
        .boxed()
    }

    fn blob<'a>(
        &'a self,
        _image: &'a ImageRef,
        digest: &'a Digest,
        _size: u64,
        _auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Stream, Failure>> {
        std::future::ready(self.find(digest.as_str()).map(|(_, body)| body.stream())).boxed()
    }
}
