//! One layer on its way from a source to the store: received, hashed, decompressed, hashed again and
//! unpacked while it comes. Nothing of it is named before both digests were right; nothing of the
//! blob is kept.

use std::{
    cell::RefCell,
    io::{self, BufReader, Cursor, Read},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::StreamExt;
use names::Digest;
use rustix::fs::Mode;
use sha2::{Digest as _, Sha256};
use sys::beneath;
use tokio::sync::{mpsc, watch};

use crate::{
    error::Error,
    source::{Failure, Stream},
    store::{Layer, Scratch, Store},
    unpack::{self, Fault, Limits},
};

/// How many chunks may lie between the network and the disk.
const PIPE: usize = 16;
/// How much of an archive is decompressed and hashed at a time, in bytes.
const BUFFER: usize = 128 << 10;
/// The largest window that a zstd stream may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW: u32 = 27;
/// How much of a broken blob is still read, to tell a bad archive from a bad download.
const WORTH_READING: u64 = 256 << 20;

/// What a layer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub blob: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    pub diff: Digest,
}

/// What comes through the pipe; that it ends is told, since one that breaks off does so silently.
enum Parcel {
    Chunk(Bytes),
    Failed(Error),
    End,
}

/// Takes in a layer. Dropping this leaves nothing behind, shortly after.
pub(crate) async fn receive(
    store: Arc<Store>,
    limits: Limits,
    wanted: Wanted,
    stream: Stream,
    progress: watch::Sender<u64>,
) -> Result<(), Error> {
    let (send, pipe) = mpsc::channel(PIPE);
    let (size, what) = (wanted.size, format!("layer {}", wanted.blob));
    let unpacking = tokio::task::spawn_blocking(move || {
        take_in(&store, &limits, &wanted, Pipe { pipe, chunk: Bytes::new(), ended: false })
    });
    feed(stream, &send, size, &what, &progress).await;
    drop(send);
    unpacking.await.unwrap_or(Err(Error::Interrupted))
}

/// Passes chunks on until the stream or its reader ends.
async fn feed(
    mut stream: Stream,
    send: &mpsc::Sender<Parcel>,
    size: u64,
    what: &str,
    progress: &watch::Sender<u64>,
) {
    let mut came = 0;
    loop {
        let parcel = match stream.next().await {
            Some(Ok(chunk)) => Parcel::Chunk(chunk),
            Some(Err(error)) => Parcel::Failed(broken_off(what, error)),
            None => Parcel::End,
        };
        let (length, last) = match &parcel {
            Parcel::Chunk(chunk) => (chunk.len() as u64, false),
            _ => (0, true),
        };
        came += length;
        // One chunk too many is passed on, so that the reader sees that it is too many.
        if send.send(parcel).await.is_err() || last || came > size {
            return;
        }
        progress.send_replace(came);
    }
}

/// The reader's end of the pipe.
struct Pipe {
    pipe: mpsc::Receiver<Parcel>,
    chunk: Bytes,
    ended: bool,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.pipe.blocking_recv() {
                Some(Parcel::Chunk(chunk)) => self.chunk = chunk,
                Some(Parcel::Failed(error)) => return Err(io::Error::other(error)),
                Some(Parcel::End) => self.ended = true,
                None => return Err(io::Error::other(Error::Interrupted)),
            }
        }
        let length = self.chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

/// The hash and the length of what went by.
#[derive(Default)]
struct Seen {
    hash: Sha256,
    bytes: u64,
}

impl Seen {
    fn digest(&self) -> Digest {
        Digest::from_sha256(self.hash.clone().finalize().into())
    }
}

/// Hashes what is read through it.
struct Watched<R> {
    reader: R,
    seen: Rc<RefCell<Seen>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let mut seen = self.seen.borrow_mut();
        seen.hash.update(&buffer[..length]);
        seen.bytes += length as u64;
        Ok(length)
    }
}

/// Stops a blob that is longer than was said, before more of it is looked at.
struct Capped<R> {
    reader: R,
    wanted: Wanted,
    seen: Rc<RefCell<Seen>>,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let got = self.seen.borrow().bytes;
        if got > self.wanted.size {
            return Err(io::Error::other(wrong_size(&self.wanted, got)));
        }
        Ok(length)
    }
}

/// Stops an archive that grows out of all proportion to its blob.
struct Bounded<R> {
    reader: R,
    layer: Digest,
    limits: Limits,
    compressed: Rc<RefCell<Seen>>,
    bytes: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.bytes += length as u64;
        let Limits { bytes, ratio, free, .. } = self.limits;
        let fair = self.compressed.borrow().bytes.saturating_mul(ratio).max(free);
        // An archive has headers beside its files.
        let limit = fair.min(bytes.saturating_add(free));
        if self.bytes > limit {
            let why = format!("it unpacks to more than {limit} bytes");
            return Err(io::Error::other(Error::TooMuch { layer: self.layer.clone(), why }));
        }
        Ok(length)
    }
}

fn wrong_size(wanted: &Wanted, got: u64) -> Error {
    Error::WrongSize { what: "the layer", digest: wanted.blob.clone(), wanted: wanted.size, got }
}

/// Unpacks what comes and commits it if it is what was wanted. Blocks.
fn take_in(store: &Arc<Store>, limits: &Limits, wanted: &Wanted, pipe: Pipe) -> Result<(), Error> {
    let scratch = store.scratch()?;
    let blob = Rc::<RefCell<Seen>>::default();
    let archive = Rc::<RefCell<Seen>>::default();
    let mut raw = Capped {
        reader: Watched { reader: pipe, seen: Rc::clone(&blob) },
        wanted: wanted.clone(),
        seen: Rc::clone(&blob),
    };
    let unpacked = unpack_into(&scratch, limits, wanted, &mut raw, &blob, &archive);
    let unpacked = match unpacked {
        Ok(unpacked) => unpacked,
        Err(fault) => return Err(blame(store, wanted, fault, raw, &blob)),
    };
    verify_blob(wanted, &blob.borrow())?;
    let got = archive.borrow().digest();
    if got != wanted.diff {
        return Err(Error::Lied { what: "the unpacked layer", wanted: wanted.diff.clone(), got });
    }
    store.commit_layer(&scratch, described(wanted, unpacked))
}

fn unpack_into(
    scratch: &Scratch,
    limits: &Limits,
    wanted: &Wanted,
    raw: &mut dyn Read,
    blob: &Rc<RefCell<Seen>>,
    archive: &Rc<RefCell<Seen>>,
) -> Result<unpack::Unpacked, Fault> {
    let files = crate::store::FILES;
    let host =
        |error: io::Error| Fault::Host { doing: "making", entry: files.into(), source: error };
    rustix::fs::mkdirat(&scratch.dir, files, Mode::RWXU).map_err(|errno| host(errno.into()))?;
    let root = beneath::open_listable(&scratch.dir, files.as_bytes()).map_err(host)?;
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::fchmod(&root, mode).map_err(|errno| host(errno.into()))?;
    let bounded = Bounded {
        reader: decompressed(raw).map_err(Fault::Read)?,
        layer: wanted.diff.clone(),
        limits: limits.clone(),
        compressed: Rc::clone(blob),
        bytes: 0,
    };
    let watched = Watched { reader: bounded, seen: Rc::clone(archive) };
    unpack::unpack(BufReader::with_capacity(BUFFER, watched), &root, limits)
}

/// Decompresses by what the bytes say that they are: registries and builders err about the type, and
/// the digest of the result is checked anyway.
pub(crate) fn decompressed<'a>(mut raw: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(4);
    (&mut raw).take(4).read_to_end(&mut magic)?;
    let zstd = matches!(magic[..], [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]);
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let whole = Cursor::new(magic).chain(raw);
    Ok(if gzip {
        Box::new(flate2::read::MultiGzDecoder::new(whole))
    } else if zstd {
        let mut decoder = zstd::Decoder::new(whole)?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        Box::new(decoder)
    } else {
        Box::new(whole)
    })
}

fn verify_blob(wanted: &Wanted, blob: &Seen) -> Result<(), Error> {
    if blob.bytes != wanted.size {
        return Err(wrong_size(wanted, blob.bytes));
    }
    let got = blob.digest();
    if got != wanted.blob {
        return Err(Error::Lied { what: "the layer", wanted: wanted.blob.clone(), got });
    }
    Ok(())
}

/// Makes an error of a fault. An archive that cannot be read may be the source's fault: then its
/// blob is not what its digest says.
fn blame(
    store: &Store,
    wanted: &Wanted,
    fault: Fault,
    mut rest: impl Read,
    blob: &Rc<RefCell<Seen>>,
) -> Error {
    let layer = wanted.blob.clone();
    match fault {
        Fault::Host { source, doing, entry } => match Error::io(doing, store.root(), source) {
            Error::Io { doing, source, .. } => {
                let path = store.root().join("layers").join(wanted.diff.hex()).join(entry);
                Error::Io { doing, path, source }
            }
            full => full,
        },
        Fault::TooMuch { .. } => Error::TooMuch { layer, why: fault.to_string() },
        Fault::Read(error) => match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => read_on(wanted, &mut rest, blob).unwrap_or_else(|| {
                let why = "it cannot be decompressed to its end".into();
                Error::BadLayer { layer, why, source: Some(error) }
            }),
        },
        Fault::Archive { .. } => read_on(wanted, &mut rest, blob)
            .unwrap_or_else(|| Error::BadLayer { layer, why: fault.to_string(), source: None }),
    }
}

/// What became of a stream that failed before its end.
fn broken_off(what: &str, error: io::Error) -> Error {
    let source = error.downcast::<Failure>();
    let source = source.unwrap_or_else(|error| Failure::new(names::Class::Unavailable, error));
    Error::Fetch { what: what.into(), source }
}

/// Reads a blob to its end to see whether it is what its digest says; the error if it is not.
fn read_on(wanted: &Wanted, rest: &mut impl Read, blob: &Rc<RefCell<Seen>>) -> Option<Error> {
    if wanted.size.saturating_sub(blob.borrow().bytes) > WORTH_READING {
        return None;
    }
    match io::copy(rest, &mut io::sink()) {
        Ok(_) => verify_blob(wanted, &blob.borrow()).err(),
        Err(error) => error.downcast().ok(),
    }
}

fn described(wanted: &Wanted, unpacked: unpack::Unpacked) -> Layer {
    let text = |path: &unpack::Within| std::str::from_utf8(path.as_bytes()).ok().map(str::to_owned);
    Layer {
        diff: wanted.diff.clone(),
        bytes: unpacked.bytes,
        names: unpacked.names,
        has_root: unpacked.has_root,
        hides_all: unpacked.hides_all,
        implied: unpacked.implied.iter().filter_map(text).collect(),
    }
}

/// Reads a small blob whole and verifies it.
pub(crate) async fn receive_small(
    what: &'static str,
    digest: &Digest,
    size: u64,
    mut stream: Stream,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| broken_off(what, error))?;
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > size {
            break;
        }
    }
    let got = bytes.len() as u64;
    if got != size {
        return Err(Error::WrongSize { what, digest: digest.clone(), wanted: size, got });
    }
    let got = Digest::from_sha256(Sha256::digest(&bytes).into());
    if got != *digest {
        return Err(Error::Lied { what, wanted: digest.clone(), got });
    }
    Ok(bytes)
}
