//! Finds the programs of others that podbayd runs.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Another's program: a path as it is, a name by `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(name)).find(|place| is_program(place))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_path_and_a_path_is_taken_as_it_is() {
        assert!(program("sh").is_some_and(|path| path.ends_with("sh")));
        assert_eq!(program("/bin/sh"), Some("/bin/sh".into()));
        assert_eq!(program("/etc/passwd"), None);
        assert_eq!(program("no-such-program-anywhere"), None);
    }
}
