//! The mounts of a container. Those of something of the host's are taken hold of by the preparer, as
//! trees that are nowhere yet: whoever builds the root need not reach the host, and no path of the
//! host's is looked up inside a container. The init puts them in their places, and makes the others.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::fs::{FileType, Mode, OFlags};
use sys::{
    beneath::{self, Place},
    cgroup::Cgroup,
    mount::{AccessTimes, Attributes, Detached, Fresh, Propagation, Tmpfs, bind, set_attributes},
    userns::Mapping,
};

use crate::program::Failure;

/// What `statfs` says of a `proc` (`linux/magic.h`).
const PROC_MAGIC: i128 = 0x9fa0;

/// What may be covered of a `proc`: files that tell of the machine, and that lxcfs tells otherwise.
const COVERED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// A mount, ready to be put in its place.
pub struct Prepared {
    place: PathBuf,
    what: What,
}

enum What {
    Tree {
        tree: Detached,
        kind: Place,
    },
    Fresh {
        kind: String,
        source: Option<String>,
        options: Options,
    },
    /// The container's own place in each hierarchy of version 1.
    Cgroups {
        trees: Vec<(String, Detached)>,
        attributes: Attributes,
    },
}

/// What a config's list of options means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    attributes: Attributes,
    /// Read-only all the way down.
    all_read_only: bool,
    bind: bool,
    /// With what is mounted beneath it.
    recursive: bool,
    propagation: Option<(Propagation, bool)>,
    /// The filesystem's own.
    data: Vec<String>,
}

/// How the host has its cgroups, for those mounts that show them.
pub struct Cgroups<'a> {
    pub v2: bool,
    pub own: Option<&'a Cgroup>,
    /// In a cgroup namespace of its own.
    pub namespace: bool,
}

impl Prepared {
    /// Takes hold of what is the host's.
    pub fn prepare(mount: &Mount, bundle: &Path, cgroups: &Cgroups<'_>) -> Result<Self, Failure> {
        let place = mount.destination().clone();
        let failed = |why: String| Failure::of_runtime(format!("the mount at {place:?}: {why}"));
        let what = prepare(mount, bundle, cgroups).map_err(failed)?;
        Ok(Self { place, what })
    }

    /// Puts it in its place, which is made if it is not there.
    pub fn attach(self, root: &OwnedFd) -> Result<(), Failure> {
        let failed =
            |why: String| Failure::of_runtime(format!("mounting at {:?}: {why}", self.place));
        attach(root, &self.place, self.what).map_err(failed)
    }
}

fn prepare(mount: &Mount, bundle: &Path, cgroups: &Cgroups<'_>) -> Result<What, String> {
    let options = Options::parse(mount.options().as_deref().unwrap_or_default())?;
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err("the built-in runtime maps no mounts: map what it is to mount".to_owned());
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    if kind == "bind" || options.bind {
        let source = mount.source().as_deref().ok_or("it has no source")?;
        return tree(&bundle.join(source), &options);
    }
    if kind == "cgroup" || kind == "cgroup2" {
        return of_cgroups(&options, cgroups);
    }
    let source = mount.source().as_ref().map(|source| source.to_string_lossy().into_owned());
    Ok(What::Fresh { kind: kind.to_owned(), source, options })
}

fn tree(source: &Path, options: &Options) -> Result<What, String> {
    if let Some(other) = options.data.first() {
        return Err(format!("a bind mount has no option {other:?}"));
    }
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", source.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::open(source, flags, Mode::empty()).map_err(|e| at(&e))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| at(&e))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let tree = bind(&fd, options.recursive).map_err(|e| at(&e))?;
    options.apply(&tree).map_err(|e| at(&e))?;
    Ok(What::Tree { tree, kind: if directory { Place::Directory } else { Place::File } })
}

pub fn mapping(map: &LinuxIdMapping) -> Mapping {
    Mapping { inside: map.container_id(), outside: map.host_id(), size: map.size() }
}

fn of_cgroups(options: &Options, cgroups: &Cgroups<'_>) -> Result<What, String> {
    if cgroups.v2 && cgroups.namespace {
        let options = Options { data: Vec::new(), ..options.clone() };
        return Ok(What::Fresh { kind: "cgroup2".to_owned(), source: None, options });
    }
    let open = |dir: &Path| {
        let view = File::open(dir).and_then(|dir| bind(&dir, false));
        let view = view.and_then(|view| options.apply(&view).map(|()| view));
        view.map_err(|e| format!("{}: {e}", dir.display()))
    };
    if cgroups.v2 {
        let tree = open(Path::new("/sys/fs/cgroup"))?;
        return Ok(What::Tree { tree, kind: Place::Directory });
    }
    let own = cgroups.own.ok_or("the container has no cgroup of its own")?;
    let trees = own.directories().into_iter().map(|(name, dir)| Ok((name, open(&dir)?)));
    let trees = trees.collect::<Result<_, String>>()?;
    Ok(What::Cgroups { trees, attributes: options.attributes })
}

fn attach(root: &OwnedFd, place: &Path, what: What) -> Result<(), String> {
    match what {
        What::Tree { tree, kind } => {
            let target = find(root, place, kind)?;
            refuse_proc(&target, place)?;
            tree.attach_to(target).map_err(|e| e.to_string())
        }
        What::Fresh { kind, source, options } => {
            let target = find(root, place, Place::Directory)?;
            if kind == "proc" || kind == "sysfs" {
                be_ordinary(root, place)?;
            } else {
                refuse_proc(&target, place)?;
            }
            let Options { data, attributes, .. } = options;
            let fresh =
                Fresh { kind: &kind, source: source.as_deref(), options: &data, attributes };
            let fresh = fresh.make().map_err(|e| format!("{kind}: {e}"))?;
            fresh.attach_to(target).map_err(|e| e.to_string())
        }
        What::Cgroups { trees, attributes } => {
            attach_cgroups(root, place, trees, attributes).map_err(|e| e.to_string())
        }
    }
}

fn find(root: &OwnedFd, place: &Path, kind: Place) -> Result<OwnedFd, String> {
    beneath::place(root, place, kind).map_err(|e| format!("making the mount point: {e}"))
}

/// The kernel's file systems are not mounted where a link leads: what later writes to them would go to
/// a file of somebody's choice (CVE-2019-19921).
fn be_ordinary(root: &OwnedFd, place: &Path) -> Result<(), String> {
    let place = place.strip_prefix("/").unwrap_or(place);
    let opened = beneath::open(root, place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    opened.map(drop).map_err(|e| format!("it must be an ordinary directory: {e}"))
}

/// Nothing covers what the runtime and the container read in `/proc`, but for a few files
/// (CVE-2019-16884).
fn refuse_proc(target: &OwnedFd, place: &Path) -> Result<(), String> {
    let of_proc = rustix::fs::fstatfs(target).is_ok_and(|fs| i128::from(fs.f_type) == PROC_MAGIC);
    if !of_proc || COVERED.iter().any(|covered| Path::new(covered) == place) {
        return Ok(());
    }
    Err("it is inside /proc".to_owned())
}

/// A directory for each hierarchy, with links where several controllers share one.
fn attach_cgroups(
    root: &OwnedFd,
    place: &Path,
    trees: Vec<(String, Detached)>,
    attributes: Attributes,
) -> std::io::Result<()> {
    let own = Attributes { read_only: false, ..attributes };
    let above = Tmpfs { size: None, inodes: None, mode: 0o755, attributes: own }.make()?;
    above.attach_to(beneath::place(root, place, Place::Directory)?)?;
    let above = beneath::place(root, place, Place::Directory)?;
    for (name, tree) in trees {
        tree.attach_to(beneath::place(&above, Path::new(&name), Place::Directory)?)?;
        for alias in name.split(',').filter(|alias| *alias != name) {
            rustix::fs::symlinkat(&name, &above, alias)?;
        }
    }
    set_attributes(&above, attributes, false)
}

impl Options {
    fn parse(options: &[String]) -> Result<Self, String> {
        let mut all = Self::default();
        for option in options {
            all.take(option)?;
        }
        Ok(all)
    }

    fn take(&mut self, option: &str) -> Result<(), String> {
        let attributes = &mut self.attributes;
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "ro" => attributes.read_only = true,
            "rw" => attributes.read_only = false,
            "rro" => (attributes.read_only, self.all_read_only) = (true, true),
            "nosuid" => attributes.no_suid = true,
            "suid" => attributes.no_suid = false,
            "nodev" => attributes.no_dev = true,
            "dev" => attributes.no_dev = false,
            "noexec" => attributes.no_exec = true,
            "exec" => attributes.no_exec = false,
            "relatime" => attributes.access_times = Some(AccessTimes::Relative),
            "strictatime" | "atime" => attributes.access_times = Some(AccessTimes::Always),
            "noatime" => attributes.access_times = Some(AccessTimes::Never),
            "defaults" => {}
            "private" => self.propagation = Some((Propagation::Private, false)),
            "rprivate" => self.propagation = Some((Propagation::Private, true)),
            "slave" => self.propagation = Some((Propagation::Slave, false)),
            "rslave" => self.propagation = Some((Propagation::Slave, true)),
            "shared" => self.propagation = Some((Propagation::Shared, false)),
            "rshared" => self.propagation = Some((Propagation::Shared, true)),
            "unbindable" | "runbindable" | "idmap" | "ridmap" | "tmpcopyup" | "rnosuid"
            | "rnodev" | "rnoexec" => {
                return Err(format!("the built-in runtime has no option {option:?}"));
            }
            other => self.data.push(other.to_owned()),
        }
        Ok(())
    }

    /// Makes a tree of the host's what the options say. It is private unless they say otherwise.
    fn apply(&self, tree: &Detached) -> std::io::Result<()> {
        let (propagation, deep) = self.propagation.unwrap_or((Propagation::Private, true));
        tree.propagate(propagation, deep && self.recursive)?;
        if self.all_read_only {
            tree.set(Attributes { read_only: true, ..Attributes::default() }, true)?;
        }
        tree.set(self.attributes, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options, String> {
        Options::parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_the_mounts_or_the_filesystems_own() {
        let options = parse(&["nosuid", "noexec", "newinstance", "mode=0620", "ro"]).unwrap();
        assert_eq!(options.data, ["newinstance", "mode=0620"]);
        let attributes = options.attributes;
        assert!(attributes.no_suid && attributes.no_exec && attributes.read_only);
        assert!(!attributes.no_dev && !options.bind);
        let bind = parse(&["rbind", "rslave", "rro"]).unwrap();
        assert!(bind.bind && bind.recursive && bind.all_read_only);
        assert_eq!(bind.propagation, Some((Propagation::Slave, true)));
    }

    #[test]
    fn an_option_that_would_be_left_out_is_refused() {
        for option in ["tmpcopyup", "unbindable", "rnosuid"] {
            assert!(parse(&[option]).unwrap_err().contains(option));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_options_are_parsed_or_refused(options in proptest::collection::vec("\\PC{0,12}", 0..6)) {
            let _ = Options::parse(&options);
        }
    }
}
