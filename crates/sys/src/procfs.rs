//! What `/proc` tells of one process, by its pid. The caller knows by other means whose pid it is: a
//! process that has ended meanwhile has nothing to tell.

use std::{fs, os::unix::ffi::OsStrExt};

/// How many descriptors a process has open, and how many of them are sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    pub all: u64,
    pub sockets: u64,
}

/// The descriptors of a process; none of one that has ended.
pub fn descriptors(pid: u32) -> Descriptors {
    let mut count = Descriptors::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        count.all += 1;
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"socket:"));
        count.sockets += u64::from(is_socket);
    }
    count
}

/// How many files a process may have open at once. None if it has ended, or has no such limit.
pub fn open_files_limit(pid: u32) -> Option<u64> {
    soft_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?, "Max open files")
}

/// The first number in a line such as `Max open files            1024                 4096 files`.
fn soft_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_descriptor_too() {
        let me = std::process::id();
        let before = descriptors(me);
        let _sockets = std::os::unix::net::UnixStream::pair().unwrap();
        let after = descriptors(me);
        // Other tests open and close theirs.
        assert!(after.all >= after.sockets && after.sockets >= 2, "{before:?} {after:?}");
        assert_eq!(descriptors(u32::MAX), Descriptors::default(), "there is no such process");
    }

    #[test]
    fn the_limit_is_the_soft_one() {
        let text = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\n\
                    Max msgqueue size unlimited unlimited bytes\n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1024));
        assert_eq!(soft_limit(text, "Max msgqueue size"), None);
        assert_eq!(soft_limit("", "Max open files"), None);
        assert!(open_files_limit(std::process::id()).is_some());
    }
}
