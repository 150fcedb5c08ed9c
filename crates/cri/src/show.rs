//! What podbayd knows, made into CRI messages.

mod container;
mod image;
mod pod;
mod stats;

pub(crate) use container::{container, container_status};
pub(crate) use image::{filesystem, image};
pub(crate) use pod::{pod, pod_status};
pub(crate) use stats::stats;
