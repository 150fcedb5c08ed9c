//! Finds the programs that podbayd runs.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Where a package puts the programs that nobody calls by hand.
const LIBEXEC: &str = "/usr/libexec/podbay";

/// A program of our own: as configured, else beside podbayd, else where a package puts it.
pub(crate) fn own(configured: &Path, name: &str) -> Result<PathBuf, Vec<PathBuf>> {
    if !configured.as_os_str().is_empty() {
        let found = is_program(configured).then(|| configured.to_owned());
        return found.ok_or_else(|| vec![configured.to_owned()]);
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let places: Vec<_> = beside.into_iter().chain([Path::new(LIBEXEC).join(name)]).collect();
    places.iter().find(|place| is_program(place)).cloned().ok_or(places)
}

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

    #[test]
    fn a_program_that_is_configured_and_not_there_is_not_looked_for_elsewhere() {
        assert_eq!(own(Path::new("/nowhere/x"), "sh"), Err(vec!["/nowhere/x".into()]));
    }
}
