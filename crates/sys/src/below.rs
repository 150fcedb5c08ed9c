//! All that is mounted below a folder, taken away: so that removing the folder removes what is the
//! folder's, and nothing that something was mounted from.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::mountinfo::unescape;

/// Unmounts all that is mounted at or below `dir`, the last mounted first. No such folder, and
/// nothing mounted, are no errors.
///
/// # Errors
/// What the kernel said of the table of mounts, or of one of them; those after it stay.
pub fn detach(dir: &Path) -> io::Result<()> {
    let table = fs::read("/proc/self/mountinfo")?;
    for point in mount_points(&table).iter().rev().filter(|point| point.starts_with(dir)) {
        crate::mount::unmount(point)?;
    }
    Ok(())
}

/// The mount points of a table, in the order of mounting. They are the fifth field of a line
/// (`proc(5)`), with spaces, tabs, newlines and backslashes written in octal.
pub fn mount_points(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(unescape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{Attributes, Tmpfs, is_mounted};

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table =
            b"22 1 0:20 / /a rw - tmpfs t rw\n23 22 0:21 / /a/with\\040space\\134 rw - x y z\n";
        assert_eq!(mount_points(table), [Path::new("/a"), Path::new("/a/with space\\")]);
    }

    #[test]
    fn what_is_mounted_below_goes_and_what_is_beside_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tmpfs = Tmpfs {
            size: Some(1 << 16),
            inodes: None,
            mode: 0o700,
            attributes: Attributes::default(),
        };
        let [beside, outer] = ["beside", "below"].map(|name| dir.path().join(name));
        fs::create_dir(&beside).unwrap();
        fs::create_dir(&outer).unwrap();
        tmpfs.make().unwrap().attach(&beside).unwrap();
        tmpfs.make().unwrap().attach(&outer).unwrap();
        let inner = outer.join("in here");
        fs::create_dir(&inner).unwrap();
        tmpfs.make().unwrap().attach(&inner).unwrap();

        detach(&outer).unwrap();
        assert!(!is_mounted(&outer).unwrap() && is_mounted(&beside).unwrap());
        detach(&outer).unwrap();
        detach(dir.path()).unwrap();
        assert!(!is_mounted(&beside).unwrap());
    }
}
