//! Reading the body of an answer while its bytes keep coming.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{Response, body::Body as _, body::Incoming};
use tokio::time::{Instant, timeout};

use crate::{config::Config, fault::Fault};

/// A body that must make progress. Only time spent waiting for the peer counts, not what the reader
/// does between chunks.
pub(crate) struct Body {
    incoming: Incoming,
    window: Duration,
    bytes: u64,
    waited: Duration,
    moved: u64,
}

impl Body {
    pub(crate) fn new(response: Response<Incoming>, config: &Config) -> Body {
        Body {
            incoming: response.into_body(),
            window: config.progress_timeout,
            bytes: config.progress_bytes,
            waited: Duration::ZERO,
            moved: 0,
        }
    }

    /// The length that the peer promised, if it did.
    pub(crate) fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next bytes, or none at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let began = Instant::now();
            let left = self.window.saturating_sub(self.waited);
            let late = |_| Fault::Slow { what: "progress", after: self.window };
            let frame = timeout(left, self.incoming.frame()).await.map_err(late)?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| Fault::of(&error, false))?;
            if let Ok(bytes) = frame.into_data() {
                self.count(bytes.len() as u64, began.elapsed());
                return Ok(Some(bytes));
            }
        }
    }

    fn count(&mut self, moved: u64, waited: Duration) {
        self.moved = self.moved.saturating_add(moved);
        self.waited = self.waited.saturating_add(waited);
        if self.moved >= self.bytes {
            self.moved = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// All of it, if it is no more than this and comes within one window. A greater promise is
    /// refused before a byte is read.
    pub(crate) async fn whole(self, limit: u64) -> Result<Bytes, Fault> {
        if self.length().is_some_and(|length| length > limit) {
            return Err(Fault::TooLarge { limit });
        }
        let window = self.window;
        let late = |_| Fault::Slow { what: "whole answer", after: window };
        timeout(window, self.collect(limit)).await.map_err(late)?
    }

    async fn collect(mut self, limit: u64) -> Result<Bytes, Fault> {
        let mut all = BytesMut::new();
        while let Some(bytes) = self.chunk().await? {
            if (all.len() + bytes.len()) as u64 > limit {
                return Err(Fault::TooLarge { limit });
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}
