//! One blob as a stream of bytes that outlives its connections: what breaks off is resumed where it
//! stopped, from the same endpoint while it makes progress and from the next when it does not.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_RANGE, HeaderValue, RANGE},
};
use names::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use crate::{
    body::Body,
    client::Peers,
    error::Error,
    fault::Fault,
    patience,
    peer::{Asked, Peer},
};

/// A blob under way. An error of its reading holds an [`Error`] (see `Error::within`). At its end
/// its bytes have been found to be of its digest.
pub struct Blob {
    size: Option<u64>,
    reader: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
    failed: bool,
}

impl Blob {
    /// In bytes, as the manifest or else the server says.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The same as chunks, without the copying that `AsyncRead` needs. Not after reading has begun.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, io::Error>> {
        self.reader.into_inner()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("size", &self.size).finish_non_exhaustive()
    }
}

impl AsyncRead for Blob {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Blob {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let blob = self.get_mut();
        // What has failed must not look like what has ended to a reader that tries again.
        if blob.failed {
            return Poll::Ready(Err(io::Error::other("the download has failed before")));
        }
        let filled = ready!(Pin::new(&mut blob.reader).poll_fill_buf(cx));
        blob.failed = filled.is_err();
        Poll::Ready(filled)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.reader).consume(amount);
    }
}

pub(crate) async fn open(peers: Peers, digest: Digest, size: Option<u64>) -> Result<Blob, Error> {
    let mut source = Source {
        peers,
        digest,
        size,
        hash: Sha256::new(),
        got: 0,
        skip: 0,
        since: 0,
        stalls: 0,
        flow: None,
        resuming: None,
    };
    source.connect().await?;
    source.peers.tell_what_failed();
    let size = source.size;
    let chunks = stream::try_unfold(source, |mut source| async move {
        let next = source.next().await?;
        Ok::<_, Error>(next.map(|bytes| (bytes, source)))
    });
    let chunks = chunks.map_err(Error::into_io).boxed();
    Ok(Blob { size, reader: StreamReader::new(chunks), failed: false })
}

struct Source {
    peers: Peers,
    digest: Digest,
    size: Option<u64>,
    hash: Sha256,
    /// Bytes handed on.
    got: u64,
    /// Bytes to pass over, from a server that begins at the beginning.
    skip: u64,
    /// Bytes handed on since the flow last broke.
    since: u64,
    /// How often in a row it broke without progress.
    stalls: u32,
    flow: Option<(Peer, Body)>,
    /// Whom to ask first for the rest.
    resuming: Option<Peer>,
}

impl Source {
    /// Gets the bytes from `got` on flowing, from whomever can.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            let Some(peer) = self.resuming.take().or_else(|| self.peers.next()) else {
                return Err(self.peers.give_up());
            };
            match self.ask(&peer).await {
                Ok(body) => {
                    self.flow = Some((peer, body));
                    return Ok(());
                }
                Err(fault) => self.peers.failed(&peer, fault),
            }
        }
    }

    async fn ask(&mut self, peer: &Peer) -> Result<Body, Fault> {
        let mut headers = HeaderMap::new();
        if self.got > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.got));
            headers.insert(RANGE, range.expect("digits can be in a header"));
        }
        let path = format!("blobs/{}", self.digest);
        let response = peer.get(&Asked { method: Method::GET, path, headers }).await?;
        let start = start(&response, self.got)?;
        let body = Body::new(response, &peer.shared.config);
        let promised = body.length().map(|length| start.saturating_add(length));
        match (promised, self.size) {
            // A part may be shorter than the rest; what is missing is asked for in its turn.
            (Some(got), Some(wanted)) if got > wanted || start == 0 && got < wanted => {
                return Err(Fault::Length { got, wanted });
            }
            (promised, size) => self.size = size.or(promised),
        }
        self.skip = self.got - start;
        Ok(body)
    }

    /// The next bytes, or none at the end of a blob that is what its digest says.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.chunk().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return self.accept(bytes).map(Some),
                // A peer that goes silent after the last byte has done its duty.
                Ok(None) | Err(_) if self.size == Some(self.got) => return self.finish(),
                Ok(None) if self.size.is_none() => return self.finish(),
                Ok(None) => {
                    let (got, wanted) = (self.got, self.size.unwrap_or_default());
                    self.resume(Fault::Length { got, wanted }).await?;
                }
                Err(fault) => self.resume(fault).await?,
            }
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        let (_, body) = self.flow.as_mut().expect("a source flows until it has failed or ended");
        let Some(mut bytes) = body.chunk().await? else { return Ok(None) };
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        Ok(Some(bytes.split_off(skipped)))
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes, Error> {
        let got = self.got.saturating_add(bytes.len() as u64);
        if let Some(wanted) = self.size.filter(|size| got > *size) {
            return Err(self.lie(Fault::Length { got, wanted }));
        }
        self.got = got;
        self.since += bytes.len() as u64;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Option<Bytes>, Error> {
        let got = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        if got == self.digest {
            return Ok(None);
        }
        Err(self.lie(Fault::Digest { got: got.to_string() }))
    }

    /// What was handed on cannot be taken back, so there is no going on with another endpoint.
    fn lie(&mut self, fault: Fault) -> Error {
        let (peer, _) = self.flow.take().expect("a source flows until it has failed or ended");
        peer.lied(&self.digest);
        self.peers.failed(&peer, fault);
        self.peers.give_up()
    }

    /// After the flow broke: from the same endpoint, unless it has broken too often without
    /// getting on.
    async fn resume(&mut self, fault: Fault) -> Result<(), Error> {
        let (peer, _) = self.flow.take().expect("a source flows until it has failed or ended");
        let config = &peer.shared.config;
        let progress = self.since >= config.progress_bytes;
        self.stalls = if progress { 1 } else { self.stalls + 1 };
        self.since = 0;
        if self.stalls > config.resumes {
            self.stalls = 0;
            self.peers.failed(&peer, fault);
        } else {
            tokio::time::sleep(patience::pause(config, self.stalls)).await;
            self.resuming = Some(peer);
        }
        self.connect().await
    }
}

/// Where an answer's bytes begin: where it was asked to, or at the beginning.
fn start(response: &Response<Incoming>, asked: u64) -> Result<u64, Fault> {
    if response.status() == StatusCode::OK {
        return Ok(0);
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    match range.and_then(range_start) {
        Some(start) if start == asked => Ok(start),
        _ => Err(Fault::Protocol("it sends another range than the one asked for".to_owned())),
    }
}

/// The first number of `bytes 5-9/10`.
fn range_start(range: &str) -> Option<u64> {
    let (start, _) = range.trim().strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_begins_with_its_first_number() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes 0-0/*"), Some(0));
        for bad in ["", "bytes */10", "bytes -5/10", "items 1-2/3", "bytes 99999999999999999999-/1"]
        {
            assert_eq!(range_start(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_range_panics(text in "\\PC{0,30}") {
            range_start(&text);
        }
    }
}
