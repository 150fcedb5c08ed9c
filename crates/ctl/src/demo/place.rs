//! Where the demo keeps all its files, and how nothing of them stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;
use tokio::process::Command;

use crate::error::{DemoError, Error};

/// Tried in this order: a disk is better than memory, and what is on an overlay cannot hold the
/// layers of another.
const CANDIDATES: [&str; 3] = ["/var/tmp", "/run", "/dev/shm"];

/// `OVERLAYFS_SUPER_MAGIC`
const OVERLAY: u64 = 0x794c_7630;

/// The cgroup of the demo's pods.
pub const CGROUP: &str = "podbay-demo";

pub struct Place(TempDir);

impl Place {
    pub fn make() -> Result<Place, Error> {
        let make = |candidate: &str| {
            let kind = rustix::fs::statfs(candidate).ok()?.f_type;
            if u64::try_from(kind) == Ok(OVERLAY) {
                return None;
            }
            tempfile::Builder::new().prefix("podbay-demo-").tempdir_in(candidate).ok()
        };
        CANDIDATES.into_iter().find_map(make).map(Place).ok_or_else(|| DemoError::NoPlace.into())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes the directory and what podbayd should have removed itself; then says which.
    pub async fn unmake(self, bridge: &'static str) -> Result<(), String> {
        let mut left = Vec::new();
        if !unmount_beneath(self.path()).is_empty() {
            left.push("mounts");
        }
        if bridge_is_there(bridge) {
            left.push("its bridge");
            remove_bridge(bridge).await;
        }
        remove_cgroups();
        self.0.close().map_err(|error| format!("its directory cannot be removed: {error}"))?;
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("podbayd left {} behind, which is a defect", left.join(" and "))),
        }
    }
}

pub fn bridge_is_there(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Best effort; whether it went does not change what is told.
async fn remove_bridge(name: &str) {
    let mut command = Command::new("ip");
    command.args(["link", "del", name]).stdin(Stdio::null()).stderr(Stdio::null());
    let limit = Duration::from_secs(5);
    let _ = tokio::time::timeout(limit, command.kill_on_drop(true).status()).await;
}

/// Unmounts all that is mounted beneath, the last one first, so that removing the directory
/// removes nothing else. Gives what it found.
fn unmount_beneath(place: &Path) -> Vec<PathBuf> {
    // Others' mount points need not be text.
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let mut beneath: Vec<_> =
        mounts.lines().filter_map(mount_point).filter(|path| path.starts_with(place)).collect();
    beneath.reverse();
    for path in &beneath {
        let _ = unmount(path, UnmountFlags::DETACH);
    }
    beneath
}

/// The fifth field of a line of mountinfo, in which the kernel writes spaces and the like as octal
/// numbers.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut path = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        let code = after.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok())?;
        path.push_str(before);
        path.push(char::from(code));
        rest = &after[3..];
    }
    path.push_str(rest);
    Some(PathBuf::from(path))
}

/// Removes the demo's empty cgroup in each hierarchy there is; the kernel keeps one that is not.
fn remove_cgroups() {
    let root = Path::new("/sys/fs/cgroup");
    let _ = fs::remove_dir(root.join(CGROUP));
    let hierarchies = fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    for hierarchy in hierarchies {
        let _ = fs::remove_dir(hierarchy.path().join(CGROUP));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mount_point_with_a_space_is_read() {
        let line = r"36 35 98:0 /mnt1 /var/tmp/a\040b rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/var/tmp/a b")));
    }

    #[test]
    fn a_place_goes_as_it_came() {
        let place = Place::make().expect("this machine has a disk");
        let path = place.path().to_owned();
        fs::write(path.join("file"), "x").expect("the place is ours");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let unmade =
            runtime.expect("a runtime can be made").block_on(place.unmake("no-such-bridge"));
        assert_eq!(unmade, Ok(()));
        assert!(!path.exists());
    }

    proptest! {
        #[test]
        fn no_line_makes_us_panic(line in "([ -~]| |\\\\|ä){0,80}") {
            mount_point(&line);
        }
    }
}
