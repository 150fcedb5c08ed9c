//! What the stdio fields of Task.Create may say to a Podbay shim. They are URIs, so that a shim of
//! another make, which wants the paths of FIFOs there, can be told apart by the caller.

use std::path::{Path, PathBuf};

const LOG: &str = "cri-log://";

/// The `stdin` of a container whose stdin is kept open for a later attach.
pub const HOLD: &str = "hold:";

/// Names the CRI log at `path`. `None` if the path is not absolute or not UTF-8.
pub fn log_uri(path: &Path) -> Option<String> {
    path.to_str().filter(|path| path.starts_with('/')).map(|path| format!("{LOG}{path}"))
}

/// The path in a [`log_uri`]. `None` if it is not one.
pub fn log_path(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix(LOG).filter(|path| path.starts_with('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_uri_names_an_absolute_path_and_nothing_else() {
        let path = Path::new("/var/log/pods/a b%20/0.log");
        let uri = log_uri(path).unwrap();
        assert_eq!(log_path(&uri).as_deref(), Some(path));
        assert_eq!(log_uri(Path::new("relative")), None);
        for bad in ["", "/run/fifo", "cri-log://relative", "file:///x"] {
            assert_eq!(log_path(bad), None, "{bad}");
        }
    }
}
