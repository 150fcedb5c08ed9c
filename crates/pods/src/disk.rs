//! The disk that containers write to, and the names of block devices.

use std::{fs, io, path::Path};

use rustix::fs::{major, minor};

/// A file system, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// As [`name`] has it.
    pub device: String,
    pub bytes: u64,
    /// Zero on file systems that make inodes as they need them.
    pub inodes: u64,
    pub inodes_free: u64,
}

/// The file system that `path` is on. Blocks.
pub(crate) fn of(path: &Path) -> io::Result<Disk> {
    let (stat, whole) = (rustix::fs::stat(path)?, rustix::fs::statvfs(path)?);
    Ok(Disk {
        device: name(major(stat.st_dev), minor(stat.st_dev)),
        bytes: whole.f_blocks.saturating_mul(whole.f_frsize),
        inodes: whole.f_files,
        inodes_free: whole.f_ffree,
    })
}

/// What people call a block device: `/dev/vda1`. One that has no node is called by its numbers.
pub(crate) fn name(major: u32, minor: u32) -> String {
    let numbers = format!("{major}:{minor}");
    let node = fs::read_link(Path::new("/sys/dev/block").join(&numbers)).ok();
    match node.as_deref().and_then(Path::file_name) {
        Some(name) => format!("/dev/{}", name.to_string_lossy()),
        None => numbers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_a_size_and_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let disk = of(dir.path()).unwrap();
        assert!(disk.bytes > 0 && disk.inodes_free <= disk.inodes, "{disk:?}");
        assert!(!disk.device.is_empty());
    }

    #[test]
    fn a_device_that_has_no_node_is_called_by_its_numbers() {
        assert_eq!(name(0, 4095), "0:4095");
    }
}
