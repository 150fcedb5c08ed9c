//! Records that could not be read: listed, and removed with what they owned. What that was is known
//! from the id alone, for everything that a pod owns is named by it; what only the record knew (the
//! CNI configuration of that day) is left to the network's own garbage collection.

use names::{ContainerId, PodId};
use store::Quarantined;

use crate::{Error, Pods};

impl Pods {
    /// All records that were set aside.
    pub fn quarantine(&self) -> Result<Vec<Quarantined>, Error> {
        Ok(self.inner.world.host.store.quarantine()?)
    }

    /// Cleans up after the record of this name, and removes it.
    pub async fn discard(&self, name: &str) -> Result<(), Error> {
        match name.split_once('/') {
            Some(("pods", id)) => {
                if let Ok(id) = id.parse() {
                    self.clean_up_after(&id).await?;
                }
            }
            Some(("containers", id)) => {
                if let Ok(id) = id.parse() {
                    self.clean_up_after_container(&id).await?;
                }
            }
            _ => {}
        }
        Ok(self.inner.world.host.store.discard(name).await?)
    }

    async fn clean_up_after(&self, pod: &PodId) -> Result<(), Error> {
        let world = &self.inner.world;
        let dir = world.state_dir(pod);
        let left = world.host.cgroups.left_of(pod).await?;
        for (_, group) in &left {
            let (id, dir, cgroup) = (pod.clone(), dir.clone(), group.path.clone());
            let place = controllers::Place { id, dir, cgroup };
            for controller in world.host.controllers.values() {
                controller.shutdown(&place).await?;
            }
        }
        let folder = dir.join("containers");
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok());
            if let Some(id) = id {
                world.host.images.unmount(&id, &entry.path().join("rootfs")).await?;
            }
        }
        world.host.images.unmount(&crate::lease(pod), &dir.join("pause/rootfs")).await?;
        for (driver, group) in &left {
            world.host.cgroups.by(*driver).unmake(group).await?;
        }
        crate::files::remove(&dir)?;
        let netns = world.netns(pod);
        crate::error::Context::on(sys::netns::unmake(&netns), "removing", &netns)?;
        let userns = world.userns(pod);
        crate::error::Context::on(sys::pin::unmake(&userns), "removing", &userns)?;
        self.sweep_bridge(Some(pod)).await
    }

    /// Frees the leases of pods that have no record, not even one that was set aside, and those of
    /// `gone`.
    pub(crate) async fn sweep_bridge(&self, gone: Option<&PodId>) -> Result<(), Error> {
        let Some(bridge) = &self.inner.world.host.bridge else { return Ok(()) };
        let held = self.quarantine()?.into_iter().filter(|held| held.table == "pods");
        let mut live: Vec<PodId> = held.filter_map(|held| held.key.parse().ok()).collect();
        live.retain(|pod| Some(pod) != gone);
        live.extend(crate::read(&self.inner.pods).keys().cloned());
        for freed in bridge.sweep(&live).await? {
            tracing::info!(?freed, "what no pod holds was freed");
        }
        Ok(())
    }

    /// Its bundle is below its pod's folder, and goes with that; what the image store has of it
    /// is freed here, if it is not a container that is known.
    async fn clean_up_after_container(&self, id: &ContainerId) -> Result<(), Error> {
        if self.knows_container(id) {
            return Ok(());
        }
        let nowhere = self.inner.world.host.state.join("nowhere");
        Ok(self.inner.world.host.images.unmount(id, &nowhere).await?)
    }
}
