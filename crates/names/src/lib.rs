//! The names of things: ids, digests, image references, error classes.
//!
//! A value of these types is right by construction: it is parsed at the edge and trusted inside.
//! No I/O lives here, and nothing asynchronous.

mod class;
mod digest;
mod id;
mod reference;

use std::collections::BTreeMap;

pub use class::{Class, chain};
pub use digest::{BadDigest, Digest};
pub use id::{BadId, ContainerId, PodId};
pub use reference::{BadReference, ImageRef};

/// Labels or annotations, in a stable order.
pub type Labels = BTreeMap<String, String>;

/// A moment, in nanoseconds since 1970-01-01T00:00:00Z, as CRI counts.
pub type Nanos = i64;

/// The time of day now.
pub fn now() -> Nanos {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}
