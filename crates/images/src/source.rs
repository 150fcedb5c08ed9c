//! Where images come from: anything that can give manifests and blobs by their digests. What it
//! gives is not believed: everything is verified by the receiver.

use std::{fmt, io};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use names::{Class, Digest, ImageRef};
pub use registry::{Auth, Fetched};

/// The bytes of a blob, as they come. Whoever makes it sees to it that it does not stall for ever.
/// An error may carry a [`Failure`].
pub type Stream = BoxStream<'static, io::Result<Bytes>>;

/// Gives manifests and blobs of images.
pub trait Source: Send + Sync + 'static {
    /// A manifest or index by its tag or digest.
    fn manifest<'a>(
        &'a self,
        image: &'a ImageRef,
        wanted: &'a str,
        auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Fetched, Failure>>;

    /// A blob by its digest; `size` as the manifest says.
    fn blob<'a>(
        &'a self,
        image: &'a ImageRef,
        digest: &'a Digest,
        size: u64,
        auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Stream, Failure>>;
}

/// Why a source did not give what was asked of it.
pub struct Failure {
    pub class: Class,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Failure {
    pub fn new(
        class: Class,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Failure {
        Failure { class, source: source.into() }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.class, self.source)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}
