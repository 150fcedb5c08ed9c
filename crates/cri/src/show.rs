//! What podbayd knows, made into CRI messages.

mod container;
mod event;
mod image;
mod metrics;
mod pod;
mod stats;

pub(crate) use container::{container, container_status, state as container_state};
pub(crate) use event::event;
pub(crate) use image::{filesystem, image};
pub(crate) use metrics::{descriptors, pod_metrics};
pub(crate) use pod::{pod, pod_status, state as pod_state};
pub(crate) use stats::{pod_stats, stats};

/// Now, as CRI tells the time.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
