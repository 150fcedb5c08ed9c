//! Files and folders, with errors that say what was being done to which.

use std::{fs, io, path::Path};

pub(crate) fn make_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(at("making", path))
}

/// Content if it is not there.
pub(crate) fn remove(dir: &Path) -> Result<(), String> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("removing", dir)(error)),
        _ => Ok(()),
    }
}

/// Makes the folders above it too.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<(), String> {
    path.parent().map_or(Ok(()), make_dir)?;
    fs::write(path, text).map_err(at("writing", path))
}

/// A file that is all holes, for a disk.
pub(crate) fn sparse(path: &Path, size: u64) -> Result<(), String> {
    fs::File::create(path).and_then(|file| file.set_len(size)).map_err(at("making", path))
}

/// Copies a file, or a folder with all in it. Links are kept as they are.
pub(crate) fn take(from: &Path, to: &Path) -> Result<(), String> {
    let meta = fs::symlink_metadata(from).map_err(at("looking for", from))?;
    to.parent().map_or(Ok(()), make_dir)?;
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(at("reading", from))?;
        return std::os::unix::fs::symlink(target, to).map_err(at("linking", to));
    }
    if !meta.is_dir() {
        return fs::copy(from, to).map(drop).map_err(at("copying", from));
    }
    make_dir(to)?;
    for entry in fs::read_dir(from).map_err(at("listing", from))?.flatten() {
        take(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Says in an error what was being done, and where.
pub(crate) fn at(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{doing} {}: {error}", path.display())
}
