//! A scope of systemd's for each pod, in the slice that the kubelet made for it. Its cgroup is ours to
//! divide: one for the process that holds it, and one for each container.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use names::PodId;
use sys::cgroup::{Cgroup, Layout, Limits};
use systemd::{Scope, Slice, Systemd};
use tokio::sync::Mutex;

use super::{Changed, Group, MakesCgroups, Measured, blocking, cgroup, holder::Holder, properties};
use crate::{Error, error::Context};

/// The request's field that names a slice.
pub(super) const FIELD: &str = "config.linux.cgroup_parent";

/// The cgroup of the process that holds the scope: one with controllers for those below it can have
/// no processes of its own.
const HOLD: &str = "hold";

/// How long systemd may take to see that a scope is empty, before it is asked to stop it; and how
/// long until its cgroup is gone when it says that it has.
const SEEN: Duration = Duration::from_millis(100);
const GONE: Duration = Duration::from_secs(2);

pub(super) struct Scopes {
    layout: Layout,
    /// Of pods that come without a parent.
    slice: Slice,
    systemd: Systemd,
    holder: PathBuf,
    /// Held while a scope is made that was there before.
    mending: Mutex<()>,
}

impl Scopes {
    pub(super) fn new(layout: Layout, slice: Slice, systemd: Systemd, holder: PathBuf) -> Self {
        Self { layout, slice, systemd, holder, mending: Mutex::default() }
    }

    /// Starts the scope with a holder in it, and stops the holder if that fails: then systemd sees
    /// that the scope is empty.
    async fn start(&self, group: &Group) -> Result<(), Error> {
        let made = cgroup(&self.layout, &group.path)?;
        let holder = self.spawn_holder(group)?;
        self.systemd.start(&scope(group, holder.pid)).await?;
        let (pid, owned, limits) = (holder.pid, group.owned, properties::rounded(&group.limits));
        let settled = blocking(move || {
            made.settle(HOLD, pid)?;
            if owned { made.apply(&limits) } else { Ok(()) }
        });
        settled.await.on("dividing the cgroup", &group.path)?;
        holder.stay().await.on("telling the holder of", &group.path)
    }

    fn spawn_holder(&self, group: &Group) -> Result<Holder, Error> {
        Holder::spawn(&self.holder, &unit(&group.pod)).on("starting", &self.holder)
    }

    /// Gives a scope in which others still are a new holder.
    async fn hold_again(&self, group: &Group) -> Result<(), Error> {
        let scope = cgroup(&self.layout, &group.path)?;
        let holder = self.spawn_holder(group)?;
        let pid = holder.pid;
        let settled = blocking(move || scope.settle(HOLD, pid)).await;
        settled.on("putting a holder into", &group.path)?;
        holder.stay().await.on("telling the holder of", &group.path)
    }

    async fn mend(&self, group: &Group) -> Result<(), Error> {
        let scope = cgroup(&self.layout, &group.path)?;
        tracing::warn!(pod = %group.pod, "what held its scope was killed; it is made again");
        if scope.is_populated() {
            match self.hold_again(group).await {
                // The last who was in it has just ended.
                Err(error) if !scope.is_populated() => {
                    tracing::debug!(pod = %group.pod, error = error.chain(), "its scope goes away");
                }
                held => return held,
            }
        }
        self.make(group).await
    }

    fn is_held(&self, path: &Path) -> Result<bool, Error> {
        Ok(cgroup(&self.layout, path)?.child(HOLD).is_populated())
    }
}

/// The name of the pod's unit. cAdvisor takes what follows the last dash for the id.
fn unit(pod: &PodId) -> String {
    format!("podbay-{pod}.scope")
}

fn scope(group: &Group, pid: u32) -> Scope {
    let slice = group.path.parent().and_then(Path::file_name);
    Scope {
        name: unit(&group.pod),
        // The root of the hierarchy is a slice too.
        slice: slice
            .map_or_else(|| "-.slice".to_owned(), |name| unescaped(&name.to_string_lossy())),
        description: format!("pod {}", group.name),
        pid,
        limits: if group.owned { properties::of(&group.limits) } else { Vec::new() },
    }
}

/// The name of the slice that has this cgroup.
fn unescaped(name: &str) -> String {
    name.strip_prefix('_').unwrap_or(name).to_owned()
}

#[async_trait]
impl MakesCgroups for Scopes {
    fn place(&self, pod: &PodId, parent: Option<&Path>) -> Result<PathBuf, Error> {
        let slice = match parent {
            None => self.slice.clone(),
            Some(parent) => Slice::at(parent).map_err(|bad| {
                let what = "podbayd uses the cgroup driver systemd: set the kubelet's cgroupDriver to systemd, or podbayd's cgroups.driver to cgroupfs";
                Error::rejected(FIELD, format!("{bad}; {what}"))
            })?,
        };
        Ok(slice.path().join(unit(pod)))
    }

    async fn make(&self, group: &Group) -> Result<(), Error> {
        match self.start(group).await {
            // One that is empty, and that systemd has not let go of yet.
            Err(Error::Systemd(systemd::Error::Exists(unit))) => {
                self.systemd.stop(&unit).await?;
                self.start(group).await
            }
            started => started,
        }
    }

    async fn ensure(&self, group: &Group) -> Result<(), Error> {
        if self.is_held(&group.path)? {
            return Ok(());
        }
        let _mending = self.mending.lock().await;
        if self.is_held(&group.path)? { Ok(()) } else { self.mend(group).await }
    }

    /// As properties of the unit, since systemd sets them all anew when it reads its files again; and as
    /// files, since it sets some only a moment after it has answered, and has no name for others.
    async fn limit(&self, group: &Group, before: &Limits) -> Result<Changed, Error> {
        if !group.owned {
            return Ok(Changed::default());
        }
        let (scope, unit) = (cgroup(&self.layout, &group.path)?, unit(&group.pod));
        let properties = properties::of(&group.limits);
        match self.systemd.set(&unit, &properties).await {
            // It will be made again, with these limits.
            Err(systemd::Error::NoSuchUnit(_)) => return Ok(Changed::default()),
            set => set?,
        }
        let back = properties::back(&properties, &properties::of(before));
        let unit = Some((self.systemd.clone(), unit, back));
        let limits = properties::rounded(&group.limits);
        match blocking(move || scope.change(&limits)).await {
            Ok(files) => Ok(Changed { files: Some(files), unit }),
            Err(error) => {
                Changed { files: None, unit }.undo().await;
                Err(error).on("limiting the cgroup", &group.path)
            }
        }
    }

    async fn rest(&self, group: &Group) -> Result<(), Error> {
        self.unmake(group).await
    }

    /// systemd removes what is empty, with all below it, and needs no bus to be told. Only where that
    /// does not help it is asked to.
    async fn unmake(&self, group: &Group) -> Result<(), Error> {
        let scope = cgroup(&self.layout, &group.path)?;
        let end = |scope: Cgroup| move || scope.kill().map(|()| scope.goes_within(SEEN));
        let ended = blocking(end(scope.clone())).await;
        if ended.on("killing what is in", &group.path)? {
            return Ok(());
        }
        self.systemd.stop(&unit(&group.pod)).await?;
        let removed =
            blocking(move || if scope.goes_within(GONE) { Ok(()) } else { scope.remove() }).await;
        removed.on("removing the cgroup", &group.path)
    }

    async fn find(&self, pod: &PodId) -> Result<Vec<PathBuf>, Error> {
        let (layout, name) = (self.layout.clone(), unit(pod));
        blocking(move || layout.named(&name))
            .await
            .on("looking for a scope below", "/sys/fs/cgroup")
    }

    /// A slice that was named is the pod's in whole. One that we chose is all pods'.
    fn measured(&self, group: &Group) -> Result<Measured, Error> {
        let scope = cgroup(&self.layout, &group.path)?;
        let ours = Some(scope.child(HOLD));
        let slice = group.path.parent().filter(|_| !group.owned);
        let slice = slice.and_then(|slice| Cgroup::new(&self.layout, slice).ok());
        Ok(Measured { whole: slice.unwrap_or(scope), ours })
    }
}
