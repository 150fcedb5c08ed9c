//! Cgroups, version 1 (also hybrid) and 2, through their files: make, limit, count, kill, remove.
//! Only groups named by the caller are touched. Nothing here speaks to systemd, and no process is
//! put anywhere unless asked. All calls block, for two seconds at the longest.

mod bpf;
mod delegated;
mod device_program;
mod devices;
mod file;
mod layout;
mod limits;
mod members;
pub mod moves;
mod stats;
mod v1;
mod v2;

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

pub use devices::Device;
pub use layout::{Hierarchy, Layout};
pub use limits::{Limits, Unsupported, weight};
pub use stats::{HugepageUse, Io, Pressure, Stall, Stats};

/// One cgroup: on v1, the directory of that name in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    layout: Layout,
    /// Relative to where the hierarchies are mounted.
    path: PathBuf,
}

/// Limits that were set, and can be put back as they were.
#[derive(Debug)]
#[must_use]
pub struct Change(Vec<file::Write>);

impl Change {
    pub fn undo(self) {
        file::undo(&self.0);
    }
}

impl Cgroup {
    /// The cgroup at `path`, absolute in its hierarchy (`/podbay/x/y`). Touches nothing.
    ///
    /// # Errors
    /// `InvalidInput` if the path is not absolute, is the root, or has `..` in it.
    pub fn new(layout: &Layout, path: &Path) -> io::Result<Self> {
        let mut parts = path.components();
        let rooted = parts.next() == Some(Component::RootDir);
        let path: PathBuf = parts.clone().collect();
        let plain = parts.all(|part| matches!(part, Component::Normal(_)));
        if rooted && plain && !path.as_os_str().is_empty() {
            return Ok(Self { layout: layout.clone(), path });
        }
        let why = format!("{path:?} does not name a cgroup below the root by an absolute path");
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// Whether it exists, if only in one of its hierarchies.
    pub fn exists(&self) -> bool {
        self.dirs().iter().any(|dir| dir.is_dir())
    }

    /// Makes it, and what is missing above it, ready for processes. Content with what exists.
    ///
    /// # Errors
    /// Of the kernel. What this call made is then unmade.
    pub fn make(&self) -> io::Result<()> {
        let mut made = Vec::new();
        let result = self.make_each(&mut made);
        if result.is_err() {
            for dir in made.iter().rev() {
                let _ = fs::remove_dir(dir);
            }
        }
        result
    }

    fn make_each(&self, made: &mut Vec<PathBuf>) -> io::Result<()> {
        for root in self.layout.roots() {
            let mut dir = root.to_owned();
            // What is above it is there as a rule, and has been made what it must be.
            if !self.layout.is_v2() && v1::make_last(root, &self.path, made)? {
                continue;
            }
            for part in &self.path {
                let parent = dir.clone();
                dir.push(part);
                if self.layout.is_v2() {
                    v2::enable_controllers(&parent)?;
                }
                match fs::create_dir(&dir) {
                    Ok(()) => made.push(dir.clone()),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(file::at("making", &dir, error)),
                }
                if !self.layout.is_v2() {
                    v1::inherit_cpuset(&parent, &dir)?;
                }
            }
        }
        Ok(())
    }

    /// Sets limits: all of them, or none.
    ///
    /// # Errors
    /// `Unsupported` if the host lacks a controller (see [`Layout::unsupported`]); `InvalidInput`
    /// if the limits contradict each other; else of the kernel.
    pub fn apply(&self, limits: &Limits) -> io::Result<()> {
        self.change(limits).map(drop)
    }

    /// As [`Cgroup::apply`], and can be taken back.
    ///
    /// # Errors
    /// As there.
    pub fn change(&self, limits: &Limits) -> io::Result<Change> {
        let lacking = self.layout.unsupported(limits);
        if !lacking.is_empty() {
            let lacking: Vec<String> = lacking.iter().map(Unsupported::to_string).collect();
            return Err(io::Error::new(io::ErrorKind::Unsupported, lacking.join(", ")));
        }
        let writes = match self.layout {
            Layout::V1 { .. } => v1::writes(self, limits)?,
            Layout::V2 { .. } => {
                v2::check_handed_down(&self.unified(), limits)?;
                v2::writes(&self.unified(), limits)?
            }
        };
        file::commit(&writes).map(Change)
    }

    /// Lets its processes use devices, rule by rule, each over those before it. To be called once: on
    /// version 2 what is said later can only take away.
    ///
    /// # Errors
    /// Of the kernel, if a rule allows more than the cgroup above does, say.
    pub fn rule_devices(&self, rules: &[Device]) -> io::Result<()> {
        if self.layout.is_v2() {
            return v2::rule_devices(&self.unified(), rules);
        }
        let Some(dir) = self.dir_of("devices") else { return Ok(()) };
        rules.iter().try_for_each(|rule| rule.write(&dir))
    }

    /// Its directory in each hierarchy of version 1, with the name that is usual for that
    /// (`cpu,cpuacct`); on version 2 the one, without a name.
    pub fn directories(&self) -> Vec<(String, PathBuf)> {
        let name = |root: &Path| root.file_name().unwrap_or_default().to_string_lossy().into();
        let roots = self.layout.roots().into_iter();
        roots
            .map(|root| {
                let name = if self.layout.is_v2() { String::new() } else { name(root) };
                (name, root.join(&self.path))
            })
            .collect()
    }

    /// Whether the kernel can limit swap here. Without it, `Limits::memory_swap` is refused.
    pub fn accounts_swap(&self) -> bool {
        match self.layout {
            Layout::V1 { .. } => {
                self.dir_of("memory").is_some_and(|dir| dir.join(v1::MEMORY_AND_SWAP).exists())
            }
            Layout::V2 { .. } => self.unified().join(v2::SWAP).exists(),
        }
    }

    /// What its processes, and those of the cgroups below it, use.
    ///
    /// # Errors
    /// `NotFound` if the cgroup is not there.
    pub fn stats(&self) -> io::Result<Stats> {
        if !self.exists() {
            return Err(self.missing());
        }
        match self.layout {
            Layout::V1 { .. } => stats::of_v1(self),
            Layout::V2 { .. } => stats::of_v2(&self.unified()),
        }
    }

    /// How many processes in it or below the kernel has killed for want of memory. To be read
    /// before the cgroup is removed. Zero if it is not there.
    pub fn oom_kills(&self) -> io::Result<u64> {
        match self.layout {
            Layout::V1 { .. } => v1::oom_kills(self),
            Layout::V2 { .. } => v2::oom_kills(&self.unified()),
        }
    }

    fn missing(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no cgroup {:?}", self.path))
    }

    /// Its directory in each hierarchy, whether or not it exists.
    fn dirs(&self) -> Vec<PathBuf> {
        self.layout.roots().iter().map(|root| root.join(&self.path)).collect()
    }

    /// Its directory in the hierarchy of this controller, if the host has that.
    fn dir_of(&self, controller: &str) -> Option<PathBuf> {
        self.layout.mount_of(controller).map(|mount| mount.join(&self.path))
    }

    /// Its one directory, on v2.
    fn unified(&self) -> PathBuf {
        self.dirs().into_iter().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
