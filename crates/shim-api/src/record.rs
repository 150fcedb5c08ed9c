//! What a shim leaves on disk for the daemon to find, should one of the two die: JSON files, each
//! written whole beside its place and then renamed into it.

use std::{fs, io, path::Path};

use names::Nanos;
use serde::{Deserialize, Serialize};

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, or 128 and the signal.
    pub code: i32,
    pub at: Nanos,
    /// The kernel's OOM killer struck in its cgroup.
    pub oom: bool,
}

impl Exit {
    /// The record's name in the bundle. It is there before any call says that the container ended.
    pub const FILE: &str = "exit.json";

    /// The exit of the container of this bundle, if it is on record.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        read(&bundle.join(Self::FILE))
    }
}

/// Which process a shim is, or was: a pid alone may have been given to another since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: ticks since boot.
    pub start: u64,
}

impl Life {
    /// The record's name in the pod's directory.
    pub const FILE: &str = "shim.pid";

    /// The shim of this directory, if it has left its record.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        read(&dir.join(Self::FILE))
    }

    /// The life of this process now. `None` if there is no such process, or it has ended.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(start_time(&stat).map(|start| Self { pid, start })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether this very process still lives.
    pub fn lasts(&self) -> io::Result<bool> {
        Ok(Self::of(self.pid)?.as_ref() == Some(self))
    }
}

/// None if it has ended, and only waits to be reaped by a parent who may never do it. The command's
/// name, the second field, is in parentheses and may have anything in it, even parentheses: count
/// from the last one.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split_ascii_whitespace();
    let lives = !matches!(fields.next()?, "Z" | "X");
    fields.nth(22 - 4)?.parse().ok().filter(|_| lives)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_told_from_another_with_the_same_pid() {
        let me = Life::of(std::process::id()).unwrap().unwrap();
        assert!(me.lasts().unwrap());
        assert!(!Life { start: me.start + 1, ..me }.lasts().unwrap());
        assert_eq!(Life::of(u32::MAX).unwrap(), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_start_time() {
        let rest = (3..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time(&format!("7 (a) b) {rest}")), Some(22));
        assert_eq!(start_time("7 (a"), None);
        let zombie = rest.replacen('3', "Z", 1);
        assert_eq!(start_time(&format!("7 (a) {zombie}")), None, "it has ended");
    }

    #[test]
    fn an_absent_record_is_none_and_a_damaged_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Exit::read(dir.path()).unwrap(), None);
        fs::write(dir.path().join(Exit::FILE), r#"{"code":3,"at":5,"oom":true}"#).unwrap();
        assert_eq!(Exit::read(dir.path()).unwrap(), Some(Exit { code: 3, at: 5, oom: true }));
        fs::write(dir.path().join(Exit::FILE), "{").unwrap();
        assert!(Exit::read(dir.path()).is_err());
    }
}
