//! The cgroup of a pod, by whichever driver: named, made, limited, held, measured and unmade. Which driver
//! that is, the pod's record says, so that a pod outlives a change of the configuration. Containers' own
//! cgroups, below it, are made by who runs them, by either driver in the same way.

mod by_files;
mod holder;
mod properties;
mod scopes;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use names::PodId;
use serde::{Deserialize, Serialize};
use sys::cgroup::{Cgroup, Change, Layout, Limits};
use systemd::{BadSlice, Property, Slice, Systemd};

use crate::{Error, host::World, limits, pod::PodRecord};

/// Who makes the cgroups of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// We do, by their files.
    #[default]
    Cgroupfs,
    /// systemd: a scope for each pod.
    Systemd,
}

/// What the daemon says of cgroups.
pub struct Settings {
    /// Of pods that are made from now on.
    pub driver: Driver,
    pub layout: Layout,
    /// Where pods are that come without a parent, relative to the hierarchy's root: `podbay`.
    pub parent: String,
    pub systemd: Systemd,
    /// The program that keeps a scope from being empty.
    pub holder: PathBuf,
}

/// The drivers of this node.
pub struct Cgroups {
    driver: Driver,
    files: Arc<dyn MakesCgroups>,
    scopes: Arc<dyn MakesCgroups>,
}

impl Cgroups {
    /// # Errors
    /// If systemd is to make cgroups, and the parent stands for no slice.
    pub fn new(settings: Settings) -> Result<Self, BadSlice> {
        let Settings { driver, layout, parent, systemd, holder } = settings;
        let slice = match Slice::standing_for(&parent) {
            // Scopes of an earlier configuration may be there; no more are made.
            Err(_) if driver == Driver::Cgroupfs => Slice::named("podbay.slice"),
            slice => slice,
        }?;
        let parent = Path::new("/").join(parent);
        let files = by_files::ByFiles { layout: layout.clone(), parent };
        let scopes = scopes::Scopes::new(layout, slice, systemd, holder);
        Ok(Self { driver, files: Arc::new(files), scopes: Arc::new(scopes) })
    }

    /// That of pods that are made now.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    pub(crate) fn by(&self, driver: Driver) -> &Arc<dyn MakesCgroups> {
        match driver {
            Driver::Cgroupfs => &self.files,
            Driver::Systemd => &self.scopes,
        }
    }

    /// All that may be left of a pod of which no more is known than its id.
    pub(crate) async fn left_of(&self, pod: &PodId) -> Result<Vec<(Driver, Group)>, Error> {
        let mut left = Vec::new();
        for driver in [Driver::Cgroupfs, Driver::Systemd] {
            for path in self.by(driver).find(pod).await? {
                let (pod, name, limits) = (pod.clone(), String::new(), Limits::default());
                left.push((driver, Group { pod, name, path, owned: true, limits }));
            }
        }
        Ok(left)
    }
}

/// A pod's cgroup, as its record has it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) pod: PodId,
    /// For people.
    pub(crate) name: String,
    /// Absolute in the hierarchy.
    pub(crate) path: PathBuf,
    /// Whether its limits are ours to set.
    pub(crate) owned: bool,
    pub(crate) limits: Limits,
}

/// One driver. Everything is idempotent, and what is unmade may have been made in half, or never.
#[async_trait]
pub(crate) trait MakesCgroups: Send + Sync {
    /// Where the cgroup of a new pod is to be. Makes nothing.
    fn place(&self, pod: &PodId, parent: Option<&Path>) -> Result<PathBuf, Error>;

    async fn make(&self, group: &Group) -> Result<(), Error>;

    /// Sees to it that it is there, before something is put into it.
    async fn ensure(&self, group: &Group) -> Result<(), Error>;

    /// Sets its limits, all or none, where they are ours. Those before are what an undo sets.
    async fn limit(&self, group: &Group, before: &Limits) -> Result<Changed, Error>;

    /// Ends what keeps the cgroup of a stopped pod.
    async fn rest(&self, group: &Group) -> Result<(), Error>;

    /// Kills what is in it, and removes it.
    async fn unmake(&self, group: &Group) -> Result<(), Error>;

    /// Where a pod's cgroup may be, if nothing is known but the id.
    async fn find(&self, pod: &PodId) -> Result<Vec<PathBuf>, Error>;

    /// Where the pod's use is told.
    fn measured(&self, group: &Group) -> Result<Measured, Error>;
}

/// Cgroups to read.
pub(crate) struct Measured {
    /// What the pod uses, with all that is put there by others.
    pub(crate) whole: Cgroup,
    /// Processes of ours in it, which are nobody's.
    pub(crate) ours: Option<Cgroup>,
}

impl Measured {
    /// How many processes are in it. Blocks.
    pub(crate) fn processes(&self) -> io::Result<u64> {
        let all = self.whole.members()?.len();
        let ours =
            self.ours.as_ref().map_or(Ok(0), |ours| ours.members().map(|pids| pids.len()))?;
        Ok(all.saturating_sub(ours) as u64)
    }
}

/// Limits that were set, and can be put back as they were.
#[derive(Default)]
#[must_use]
pub(crate) struct Changed {
    files: Option<Change>,
    unit: Option<(Systemd, String, Vec<Property>)>,
}

impl Changed {
    pub(crate) async fn undo(self) {
        if let Some((systemd, unit, properties)) = self.unit
            && let Err(error) = systemd.set(&unit, &properties).await
        {
            tracing::error!(unit, error = names::chain(&error), "its limits stay as they were set");
        }
        if let Some(files) = self.files {
            files.undo();
        }
    }
}

impl World {
    /// The pod's cgroup, with the limits that hold now.
    pub(crate) fn group(&self, pod: &PodRecord) -> Group {
        let limits = limits::of_pod(&pod.overhead, &pod.resources);
        let (limits, _) = limits::clip(&self.host.node, limits);
        Group {
            pod: pod.id.clone(),
            name: format!("{}/{}", pod.plan.name.namespace, pod.plan.name.name),
            path: pod.cgroup.clone(),
            owned: pod.owns_cgroup,
            limits,
        }
    }

    /// Who made the pod's cgroup, whatever the configuration has become.
    pub(crate) fn makes_cgroup_of(&self, pod: &PodRecord) -> &Arc<dyn MakesCgroups> {
        self.host.cgroups.by(pod.driver)
    }
}

pub(crate) fn cgroup(layout: &Layout, path: &Path) -> Result<Cgroup, Error> {
    crate::error::Context::on(Cgroup::new(layout, path), "naming the cgroup", path)
}

/// Kills what is in a cgroup, and removes it.
pub(crate) async fn end(layout: &Layout, path: &Path) -> Result<(), Error> {
    let left = cgroup(layout, path)?;
    // Waiting for processes to go is a matter of polling on cgroup v1.
    let ended = blocking(move || left.kill().and_then(|()| left.remove())).await;
    crate::error::Context::on(ended, "removing the cgroup", path)
}

/// Does what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

#[cfg(test)]
mod tests;
