//! A registry as a source of images.

use std::io;

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use names::{Class, Digest, ImageRef};
use registry::Registry;

use crate::source::{Auth, Failure, Fetched, Source, Stream};

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Failure {
        Failure::new(error.class(), error)
    }
}

impl Source for Registry {
    fn manifest<'a>(
        &'a self,
        image: &'a ImageRef,
        wanted: &'a str,
        auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Fetched, Failure>> {
        async move { Ok(Registry::manifest(self, image, wanted, auth).await?) }.boxed()
    }

    fn blob<'a>(
        &'a self,
        image: &'a ImageRef,
        digest: &'a Digest,
        size: u64,
        auth: Option<&'a Auth>,
    ) -> BoxFuture<'a, Result<Stream, Failure>> {
        async move {
            let blob = Registry::blob(self, image, digest, Some(size), auth).await?;
            Ok(blob.into_stream().map(|chunk| chunk.map_err(classed)).boxed())
        }
        .boxed()
    }
}

/// Keeps the class of a registry's error through a stream, which knows only `io::Error`.
fn classed(error: io::Error) -> io::Error {
    let class = registry::Error::within(&error).map_or(Class::Unavailable, registry::Error::class);
    io::Error::other(Failure::new(class, error))
}
