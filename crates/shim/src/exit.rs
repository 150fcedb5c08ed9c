//! How the end of a container is put on record: on disk first, then told.

use std::{fs, io::Write as _, path::Path};

use serde::Serialize;
use shim_api::Exit;

use crate::error::Error;

/// Writes the exit record into the bundle.
pub fn record(bundle: &Path, exit: &Exit) -> Result<(), Error> {
    put(bundle, Exit::FILE, exit)
}

/// Writes a file whole: beside its place, and then into it. It is on tmpfs, and good for this boot
/// only, so that nothing is synced.
pub fn put(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), Error> {
    let (path, half) = (dir.join(name), dir.join(format!(".{name}.tmp")));
    let text = serde_json::to_vec(value).expect("records are numbers and booleans");
    let write = || {
        fs::File::create(&half)?.write_all(&text)?;
        fs::rename(&half, &path)
    };
    write().map_err(|e| Error::io("recording", &path, e))
}
