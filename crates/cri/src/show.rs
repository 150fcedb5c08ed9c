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
