//! The small files of a cgroup, read and written whole, with the path in every error. What the
//! files mean is not known here.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
struct At {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Says in an error what was being done, and where. The kind is kept.
pub(super) fn at(doing: &'static str, path: &Path, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), At { doing, path: path.to_owned(), source })
}

/// One value to be written to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub path: PathBuf,
    pub value: String,
}

impl Write {
    pub(super) fn new(dir: &Path, file: &str, value: impl ToString) -> Self {
        Self { path: dir.join(file), value: value.to_string() }
    }
}

/// Writes all, in order, or puts back what was there before. Gives what was there, in that order.
pub(super) fn commit(writes: &[Write]) -> io::Result<Vec<Write>> {
    let mut done: Vec<Write> = Vec::new();
    for Write { path, value } in writes {
        let before = fs::read_to_string(path);
        if let Err(error) = write(path, value) {
            undo(&done);
            return Err(error);
        }
        done.extend(before.map(|old| Write { path: path.clone(), value: old.trim().to_owned() }));
    }
    Ok(done)
}

/// Puts back what was there, the last first. An old value that will not go back is let be: the error
/// that led here is the one to tell.
pub(super) fn undo(done: &[Write]) {
    for Write { path, value } in done.iter().rev() {
        let _ = write(path, value);
    }
}

/// Writes an existing file in one call, as the kernel wants it. Makes no file.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| at("writing", path, source))
}

/// Reads a file; `None` if it, or its cgroup, is not there (any more).
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(at("reading", path, error)),
    }
}

/// A cgroup that is removed while it is read answers ENODEV, one that is threaded EOPNOTSUPP.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NODEV, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| gone.contains(&code))
}

/// Reads a file that holds one number, `max` being the greatest. Zero if there is none.
pub(super) fn number(path: &Path) -> io::Result<u64> {
    Ok(read(path)?.as_deref().and_then(to_number).unwrap_or(0))
}

pub(super) fn to_number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// The number that follows `key` in a file of lines `key number`. Zero if there is none.
pub(super) fn field(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| to_number(value))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_fail_half_way_are_put_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpu.weight"), "100\n").unwrap();
        let writes =
            [Write::new(dir.path(), "cpu.weight", 7), Write::new(dir.path(), "memory.max", 1)];
        let error = commit(&writes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().ends_with("memory.max"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("cpu.weight")).unwrap(), "100");
        assert!(!dir.path().join("memory.max").exists());
    }

    #[test]
    fn writes_that_were_done_can_be_put_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpu.weight"), "100\n").unwrap();
        let done = commit(&[Write::new(dir.path(), "cpu.weight", 7)]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("cpu.weight")).unwrap(), "7");
        undo(&done);
        assert_eq!(fs::read_to_string(dir.path().join("cpu.weight")).unwrap(), "100");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "total_rss 5\nrss 7\nbad\nrss_huge x\n";
        assert_eq!(field(text, "rss"), 7);
        assert_eq!(field(text, "rss_huge"), 0);
        assert_eq!(field(text, "cache"), 0);
    }
}
