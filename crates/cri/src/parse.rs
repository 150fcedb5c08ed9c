//! CRI messages made into plans: once, here. Past this point there is no optional message, no empty
//! text that stands for none, and no number that stands for a word. All that is wrong with a
//! request is found here, before anything is done, and told with the field's path.

mod container;
mod pod;
mod security;

use std::path::{Component, Path, PathBuf};

pub use container::container;
pub use pod::pod;
pub(crate) use security::resources;

/// A field of a request that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Rejected {
    pub field: String,
    pub why: String,
}

pub(crate) fn rejected(field: impl Into<String>, why: impl Into<String>) -> Rejected {
    Rejected { field: field.into(), why: why.into() }
}

/// A message that must be there.
pub(crate) fn needed<T>(message: Option<T>, field: &str) -> Result<T, Rejected> {
    message.ok_or_else(|| rejected(field, "is missing"))
}

/// A text that must be there, and must do as a line of a file or as an argument.
pub(crate) fn word(text: String, field: &str) -> Result<String, Rejected> {
    if text.is_empty() {
        return Err(rejected(field, "is missing"));
    }
    line(text, field)
}

/// A text without control characters, so that it cannot begin a line of its own (CVE-2022-4318).
pub(crate) fn line(text: String, field: &str) -> Result<String, Rejected> {
    if text.chars().any(char::is_control) {
        return Err(rejected(field, "has a control character"));
    }
    Ok(text)
}

pub(crate) fn lines(texts: Vec<String>, field: &str) -> Result<Vec<String>, Rejected> {
    texts.into_iter().enumerate().map(|(n, text)| word(text, &format!("{field}[{n}]"))).collect()
}

/// A path that is absolute and does not climb.
pub(crate) fn absolute(text: &str, field: &str) -> Result<PathBuf, Rejected> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(rejected(field, format!("must be an absolute path, not {text:?}")));
    }
    if text.contains('\0') || path.components().any(|part| part == Component::ParentDir) {
        return Err(rejected(field, format!("must not hold \"..\" or NUL, as {text:?} does")));
    }
    Ok(path.to_owned())
}
