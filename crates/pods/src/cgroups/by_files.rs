//! Cgroups by their files, made by us, or by whoever names one.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use names::PodId;
use sys::cgroup::{Layout, Limits};

use super::{Changed, Group, MakesCgroups, Measured, blocking, cgroup, end};
use crate::{Error, error::Context};

pub(super) struct ByFiles {
    pub(super) layout: Layout,
    /// Of pods that come without a parent.
    pub(super) parent: PathBuf,
}

#[async_trait]
impl MakesCgroups for ByFiles {
    fn place(&self, pod: &PodId, parent: Option<&Path>) -> Result<PathBuf, Error> {
        match parent {
            None => Ok(self.parent.join(pod.as_str())),
            Some(path) if path.is_absolute() => Ok(path.to_owned()),
            Some(name) => Err(Error::rejected(
                super::scopes::FIELD,
                format!(
                    "{name:?} names a slice of systemd, and podbayd makes cgroups by their files: set the kubelet's cgroupDriver to cgroupfs, or podbayd's cgroups.driver to systemd"
                ),
            )),
        }
    }

    async fn make(&self, group: &Group) -> Result<(), Error> {
        if !group.owned {
            return Ok(());
        }
        let (made, limits, path) =
            (cgroup(&self.layout, &group.path)?, group.limits.clone(), group.path.clone());
        blocking(move || {
            made.make().on("making the cgroup", &path)?;
            made.apply(&limits).on("limiting the cgroup", &path)
        })
        .await
    }

    /// What is named may be made by whoever is put into it.
    async fn ensure(&self, _: &Group) -> Result<(), Error> {
        Ok(())
    }

    async fn limit(&self, group: &Group, _: &Limits) -> Result<Changed, Error> {
        if !group.owned {
            return Ok(Changed::default());
        }
        let (found, limits) = (cgroup(&self.layout, &group.path)?, group.limits.clone());
        // A smaller limit on memory makes the kernel look for what can be let go.
        let change = blocking(move || found.change(&limits)).await;
        let files = Some(change.on("limiting the cgroup", &group.path)?);
        Ok(Changed { files, unit: None })
    }

    async fn rest(&self, _: &Group) -> Result<(), Error> {
        Ok(())
    }

    async fn unmake(&self, group: &Group) -> Result<(), Error> {
        if !group.owned {
            return Ok(());
        }
        end(&self.layout, &group.path).await
    }

    async fn find(&self, pod: &PodId) -> Result<Vec<PathBuf>, Error> {
        Ok(vec![self.parent.join(pod.as_str())])
    }

    fn measured(&self, group: &Group) -> Result<Measured, Error> {
        Ok(Measured { whole: cgroup(&self.layout, &group.path)?, ours: None })
    }
}
