//! The one way in which a plan fails: it asks for what can never be had.

use names::Class;

/// A request that can never succeed as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Rejected {
    field: String,
    why: String,
}

impl Rejected {
    pub(crate) fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    /// The field at fault, as CRI names it: `config.mounts[2].container_path`.
    pub fn field(&self) -> &str {
        &self.field
    }

    pub fn class(&self) -> Class {
        Class::InvalidArgument
    }
}
