//! What the command line asks beyond CRI: archives of images, pulls that tell how far they are, and
//! the quarantine.

use std::pin::Pin;

use cri_proto::admin::{self, admin_server};
use images::Images;
use store::Store;
use tonic::Status;

use crate::code;

/// Serves `podbay.admin.v1.Admin`.
#[derive(Clone)]
pub struct AdminService {
    images: Images,
    store: Store,
}

impl AdminService {
    pub fn new(images: Images, store: Store) -> Self {
        Self { images, store }
    }
}

#[tonic::async_trait]
impl admin_server::Admin for AdminService {}
