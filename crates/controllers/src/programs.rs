//! The programs of our own that sandboxes need: where they are, and the pause program as a root
//! filesystem.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::{Error, error::Context};

/// Where a package puts the programs that nobody calls by hand.
const LIBEXEC: &str = "/usr/libexec/podbay";

/// A program of our own: as configured, else beside this one, else where a package puts it.
///
/// # Errors
/// It is in none of these places.
pub fn own_program(configured: &Path, name: &str) -> Result<PathBuf, Vec<PathBuf>> {
    if !configured.as_os_str().is_empty() {
        let found = is_program(configured).then(|| configured.to_owned());
        return found.ok_or_else(|| vec![configured.to_owned()]);
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let places: Vec<_> = beside.into_iter().chain([Path::new(LIBEXEC).join(name)]).collect();
    places.iter().find(|place| is_program(place)).cloned().ok_or(places)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Makes the root filesystem of the built-in pause at `rootfs`: the program, as `/pause`, and the
/// places where things are mounted. All pods share it, and see it read-only.
///
/// # Errors
/// Something could not be written.
pub fn pause_rootfs(rootfs: &Path, program: &Path) -> Result<(), Error> {
    for name in ["dev", "etc", "proc", "sys", "tmp"] {
        let dir = rootfs.join(name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.on("making the folder", dir)?;
    }
    let (half, whole) = (rootfs.join(".pause"), rootfs.join("pause"));
    // What is there already is left alone: pods run it, and the disk may be full.
    if fs::read(&whole).ok() == fs::read(program).ok() {
        return Ok(());
    }
    fs::copy(program, &half)
        .and_then(|_| fs::set_permissions(&half, fs::Permissions::from_mode(0o555)))
        .and_then(|()| fs::set_permissions(rootfs, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&half, &whole))
        .on("installing the pause program at", whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_configured_and_not_there_is_not_looked_for_elsewhere() {
        assert_eq!(own_program(Path::new("/nowhere/x"), "sh"), Err(vec!["/nowhere/x".into()]));
    }

    #[test]
    fn the_pause_program_is_installed_once_and_renewed_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (program, rootfs) = (dir.path().join("p"), dir.path().join("rootfs"));
        for content in ["one", "one", "two"] {
            fs::write(&program, content).unwrap();
            pause_rootfs(&rootfs, &program).unwrap();
            assert_eq!(fs::read_to_string(rootfs.join("pause")).unwrap(), content);
        }
        assert!(is_program(&rootfs.join("pause")) && rootfs.join("proc").is_dir());
    }
}
