//! A cgroup of version 2 that another has made, and will take away, while what is below it is ours:
//! systemd's scopes. How it is asked for is not known here.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Cgroup, Layout, file, members};

impl Cgroup {
    /// The one of this name below it. Touches nothing.
    pub fn child(&self, name: &str) -> Self {
        Self { layout: self.layout.clone(), path: self.path.join(name) }
    }

    /// Whether a process is in it, or below it.
    pub fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.unified().join("cgroup.events"));
        events.is_ok_and(|events| file::field(&events, "populated") == 1)
    }

    /// Moves a process to a cgroup of that name below this one, which must be there: beside processes no
    /// controller is handed down.
    ///
    /// # Errors
    /// `NotFound` if this one is not there, or goes away meanwhile; else of the kernel.
    pub fn settle(&self, name: &str, pid: u32) -> io::Result<()> {
        if !self.exists() {
            return Err(self.missing());
        }
        let (below, dir) = (self.child(name), self.unified().join(name));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(file::at("making", &dir, error));
            }
            _ => {}
        }
        file::write(&dir.join("cgroup.procs"), &pid.to_string())?;
        below.make()
    }

    /// Waits for another to take it away, and tells whether that has happened.
    pub fn goes_within(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        for tried in 0.. {
            if !self.exists() {
                return true;
            }
            if Instant::now() >= deadline {
                break;
            }
            members::pause(tried);
        }
        false
    }
}

impl Layout {
    /// The cgroups of this name, wherever they are. None on version 1.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn named(&self, name: &str) -> io::Result<Vec<PathBuf>> {
        let Self::V2 { root } = self else { return Ok(Vec::new()) };
        let mut found = members::below(root)?;
        found.retain(|dir| dir.file_name().is_some_and(|last| last == name));
        let in_hierarchy =
            |dir: PathBuf| Path::new("/").join(dir.strip_prefix(root).unwrap_or(&dir));
        Ok(found.into_iter().map(in_hierarchy).collect())
    }
}
