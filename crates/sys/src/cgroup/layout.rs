//! Where this host's cgroup hierarchies are mounted, and which controllers each has. Names no
//! cgroup of anyone's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Limits, Unsupported, file, v1::MEMORY_AND_SWAP, v2::SWAP};

/// How this host lays out its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy for each controller. A hybrid host, whose cgroup2 mount has few controllers
    /// or none, counts as this.
    V1 {
        hierarchies: Arc<[Hierarchy]>,
        /// Where cgroup2 is mounted beside, on a hybrid host. Nothing is made there by us; runtimes
        /// may, and what they leave is removed with the rest.
        beside: Option<PathBuf>,
    },
    /// The one hierarchy of cgroup2, mounted at `root`.
    V2 { root: PathBuf },
}

/// One mounted hierarchy of cgroup v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// The controllers mounted together here; a named hierarchy has `name=…` alone.
    pub controllers: Vec<String>,
}

/// Mount options of a v1 hierarchy that are not controllers.
const OPTIONS: [&str; 8] =
    ["rw", "ro", "noprefix", "xattr", "clone_children", "cpuset_v2_mode", "none", "favordynmods"];

impl Layout {
    /// Looks at the mounts of this process.
    ///
    /// # Errors
    /// `NotFound` if no cgroup hierarchy is mounted.
    pub fn detect() -> io::Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read(path).map_err(|e| file::at("reading", path, e))?;
        Self::parse(&mounts).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted on this host")
        })
    }

    /// The layout under a directory: cgroup2 if it has `cgroup.controllers`, else one hierarchy
    /// for each directory in it, named by its controllers (`cpu,cpuacct`).
    pub fn at(root: &Path) -> io::Result<Self> {
        if root.join("cgroup.controllers").exists() {
            return Ok(Self::V2 { root: root.to_owned() });
        }
        let entries = fs::read_dir(root).map_err(|e| file::at("listing", root, e))?;
        let mut mounts = entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        mounts.sort();
        let names = |mount: &Path| -> Vec<String> {
            let name = mount.file_name().unwrap_or_default().to_string_lossy();
            name.split(',').map(str::to_owned).collect()
        };
        let hierarchies =
            mounts.into_iter().map(|m| Hierarchy { controllers: names(&m), mount: m }).collect();
        Ok(Self::V1 { hierarchies, beside: None })
    }

    /// The layout that a mountinfo file tells of. Others mount where they like: a path that is not
    /// text is no reason not to find ours.
    pub fn parse(mountinfo: &[u8]) -> Option<Self> {
        let mountinfo = String::from_utf8_lossy(mountinfo);
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mounts.iter().filter(|m| m.kind == "cgroup") {
            let controllers = mount.controllers();
            // The same hierarchy may be mounted again elsewhere: the first place is the host's.
            if !hierarchies.iter().any(|h| h.controllers == controllers) {
                hierarchies.push(Hierarchy { mount: mount.point.clone(), controllers });
            }
        }
        let controls = |h: &Hierarchy| h.controllers.iter().any(|c| !c.starts_with("name="));
        let unified = mounts.iter().find(|m| m.kind == "cgroup2").map(|m| m.point.clone());
        if hierarchies.iter().any(controls) {
            return Some(Self::V1 { hierarchies: hierarchies.into(), beside: unified });
        }
        Some(Self::V2 { root: unified? })
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// Whether limits of this controller can be set on this host.
    pub fn has(&self, controller: &str) -> bool {
        match self {
            Self::V1 { .. } => self.mount_of(controller).is_some(),
            Self::V2 { root } => fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|all| all.split_whitespace().any(|c| c == controller)),
        }
    }

    /// Whether the kernel can limit swap. On v2 the root has no file to tell by, so that the answer
    /// is "no" for as long as no cgroup below it has the memory controller: ask when ours is made.
    pub fn accounts_swap(&self) -> bool {
        match self {
            Self::V1 { .. } => {
                self.mount_of("memory").is_some_and(|mount| mount.join(MEMORY_AND_SWAP).exists())
            }
            Self::V2 { root } => fs::read_dir(root)
                .is_ok_and(|all| all.flatten().any(|one| one.path().join(SWAP).exists())),
        }
    }

    /// Those of the limits that this host has no controller for. `Cgroup::apply` refuses them:
    /// the caller leaves out what is only asked for out of habit (huge pages), with a warning.
    pub fn unsupported(&self, limits: &Limits) -> Vec<Unsupported> {
        limits.needs(self.is_v2()).into_iter().filter(|need| !self.has(&need.controller)).collect()
    }

    /// Where each hierarchy is mounted.
    pub(super) fn roots(&self) -> Vec<&Path> {
        match self {
            Self::V1 { hierarchies, .. } => hierarchies.iter().map(|h| h.mount.as_path()).collect(),
            Self::V2 { root } => vec![root],
        }
    }

    /// A mount where others may have made what is ours to remove.
    pub(super) fn beside(&self) -> Option<&Path> {
        match self {
            Self::V1 { beside, .. } => beside.as_deref(),
            Self::V2 { .. } => None,
        }
    }

    /// Where this controller's hierarchy is mounted. On v2, that is the same for all.
    pub(super) fn mount_of(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1 { hierarchies, .. } => hierarchies
                .iter()
                .find(|h| h.controllers.iter().any(|c| c == controller))
                .map(|h| h.mount.as_path()),
            Self::V2 { root } => Some(root),
        }
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)), as far as it matters here.
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(Self {
            point: crate::mountinfo::unescape(before.split(' ').nth(4)?.as_bytes()),
            kind: after.next()?,
            options: after.nth(1)?,
        })
    }

    fn controllers(&self) -> Vec<String> {
        self.options
            .split(',')
            .filter(|o| !OPTIONS.contains(o) && !o.starts_with("release_agent="))
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:32 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_counts_as_v1() {
        let layout = Layout::parse(HYBRID.as_bytes()).unwrap();
        assert!(!layout.is_v2());
        assert_eq!(layout.roots().len(), 3);
        let cpu = Path::new("/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(layout.mount_of("cpu"), Some(cpu));
        assert_eq!(layout.mount_of("cpuacct"), Some(cpu));
        assert_eq!(layout.mount_of("memory"), Some(Path::new("/sys/fs/cgroup/memory")));
        assert!(layout.has("name=systemd"));
        assert!(!layout.has("hugetlb"));
    }

    #[test]
    fn a_host_whose_v1_mounts_control_nothing_counts_as_v2() {
        let lines = "\
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/my\\040cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
        let root = PathBuf::from("/sys/fs/my cgroup");
        assert_eq!(Layout::parse(lines.as_bytes()), Some(Layout::V2 { root }));
        assert_eq!(Layout::parse(b"1 2 0:3 / / rw - ext4 /dev/x rw\n"), None);
    }

    #[test]
    fn a_mount_point_that_is_not_text_hides_no_hierarchy() {
        let odd = b"50 23 0:40 / /mnt/\xff\xfe rw - tmpfs tmpfs rw\n";
        let layout = Layout::parse(&[&odd[..], HYBRID.as_bytes()].concat());
        assert_eq!(layout, Layout::parse(HYBRID.as_bytes()));
    }

    #[test]
    fn a_directory_of_directories_is_v1_and_one_with_controllers_is_v2() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cpu,cpuacct")).unwrap();
        assert!(Layout::at(dir.path()).unwrap().has("cpuacct"));
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        let layout = Layout::at(dir.path()).unwrap();
        assert!(layout.is_v2() && layout.has("memory") && !layout.has("cpuacct"));
    }

    proptest::proptest! {
        #[test]
        fn any_mountinfo_is_read_without_a_panic(text in "(\\PC{0,80}\n){0,5}") {
            let _ = Layout::parse(text.as_bytes());
        }
    }
}
