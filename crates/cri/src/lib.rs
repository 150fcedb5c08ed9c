//! The gRPC edge: CRI messages to the domain and back. Nothing is decided here: what is wrong with a
//! request is found in [`parse`], what is done about a right one is `pods`' and `images`' matter.

mod code;
pub mod parse;
mod pieces;
mod runtime;
mod show;
mod streams;

mod admin;
mod image_service;

pub use admin::AdminService;
pub use image_service::ImageService;
pub use runtime::{Facts, RuntimeService};
pub use streams::Streams;
