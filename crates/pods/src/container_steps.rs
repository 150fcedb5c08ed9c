//! How each step of a container is made, and unmade.

use std::fs;

use controllers::{Container, Controller};
use names::Class;
use shim_api::CreateTask;

use crate::{
    Error,
    container::{ContainerRecord, ContainerStep},
    error::Context,
    host::World,
    intent::Intent,
    owner::Turn,
    owners,
    pod::PodRecord,
    pod_steps::place,
    spec,
    step::{Owned, Phase},
    volumes,
};

/// One container, while somebody makes or unmakes it.
pub(crate) struct ContainerWork<'a> {
    pub(crate) world: &'a World,
    pub(crate) pod: &'a PodRecord,
    pub(crate) turn: Turn<'a, ContainerRecord>,
    /// A process in the pid namespace that it is to share, if it is another container's.
    pub(crate) pid_target: Option<u32>,
    intent: Intent,
}

#[async_trait::async_trait]
impl Owned for ContainerWork<'_> {
    type Step = ContainerStep;

    fn phase(&self) -> Phase<ContainerStep> {
        self.turn.phase
    }

    async fn save(&mut self, phase: Phase<ContainerStep>) -> Result<(), Error> {
        self.turn.phase = phase;
        self.turn.show();
        let (records, id) = (&self.world.container_records, self.turn.id.as_str());
        // What a loss of power would leave, a layer without a record, is swept at the next start.
        self.intent.record(records, id, &self.turn, phase).await
    }

    async fn make(&mut self, step: ContainerStep) -> Result<(), Error> {
        match step {
            // The record itself is there: every step's intent is written to it first.
            ContainerStep::Record => Ok(()),
            ContainerStep::Bundle => self.make_bundle(),
            ContainerStep::Rootfs => self.make_rootfs().await,
            ContainerStep::Task => self.make_task().await,
        }
    }

    async fn unmake(&mut self, step: ContainerStep) -> Result<(), Error> {
        match step {
            ContainerStep::Task => self.unmake_task().await,
            ContainerStep::Rootfs => self.unmake_rootfs().await,
            ContainerStep::Bundle => self.unmake_bundle(),
            ContainerStep::Record => Ok(()),
        }
    }

    async fn forget(&mut self) -> Result<(), Error> {
        self.world.container_records.erase(self.turn.id.as_str()).await?;
        self.turn.erased();
        Ok(())
    }
}

impl<'a> ContainerWork<'a> {
    pub(crate) fn new(
        world: &'a World,
        pod: &'a PodRecord,
        turn: Turn<'a, ContainerRecord>,
    ) -> Self {
        Self { world, pod, turn, pid_target: None, intent: Intent::default() }
    }
}

impl ContainerWork<'_> {
    fn make_bundle(&mut self) -> Result<(), Error> {
        let bundle = &self.turn.bundle;
        fs::create_dir_all(bundle.join("rootfs")).on("making the folder", bundle)?;
        owners::let_through(self.pod, bundle).on("opening the folder", bundle)?;
        // The kubelet makes the pod's log folder, and expects what is below it to be made.
        match self.turn.log.as_deref().and_then(|log| log.parent()) {
            Some(folder) => fs::create_dir_all(folder).on("making the log folder", folder),
            None => Ok(()),
        }
    }

    fn unmake_bundle(&mut self) -> Result<(), Error> {
        crate::files::remove_unmounted(&self.turn.bundle)
    }

    async fn make_rootfs(&mut self) -> Result<(), Error> {
        let target = self.turn.bundle.join("rootfs");
        let access = images::Access::Writable;
        let volumes = volumes::of(&self.turn);
        for volume in &volumes {
            fs::create_dir_all(&volume.target).on("making the folder", &volume.target)?;
        }
        let user = self.pod.plan.namespaces.user.as_ref();
        let owners = user.map(owners::maps).unwrap_or_default();
        let image = self.turn.image.clone();
        let rootfs = images::Rootfs { image, target, access, volumes, owners };
        let mounted = self.world.host.images.mount_rootfs(&self.turn.id, rootfs).await;
        mounted.map_err(|error| volumes::told(&self.turn.plan, error))?;
        volumes::map_folders(&self.turn)
    }

    async fn unmake_rootfs(&mut self) -> Result<(), Error> {
        volumes::unmap_folders(&self.turn)?;
        // The image store knows of them too, if it can read its record.
        for volume in volumes::of(&self.turn) {
            sys::mount::unmount(&volume.target).on("unmounting", &volume.target)?;
        }
        let target = self.turn.bundle.join("rootfs");
        Ok(self.world.host.images.unmount(&self.turn.id, &target).await?)
    }

    async fn make_task(&mut self) -> Result<(), Error> {
        let user = spec::user(&self.world.host, &self.turn)?;
        self.turn.user = Some(user.clone().into());
        let config = spec::config(&self.world.host, self.pod, &self.turn, user, self.pid_target)?;
        for warning in &config.warnings {
            tracing::warn!(container = %self.turn.id, %warning, "left out");
        }
        let file = self.turn.bundle.join("config.json");
        crate::files::write_secret(&file, &oci::to_json(&config.spec)).on("writing", &file)?;
        let plan = &self.turn.plan;
        let task = CreateTask {
            id: self.turn.id.to_string(),
            bundle: self.turn.bundle.clone(),
            runtime: self.turn.runtime.clone(),
            log: self.turn.log.clone(),
            terminal: plan.tty,
            stdin: plan.stdin,
            stdin_once: plan.stdin_once,
            no_pivot: false,
            // What is below a pod's cgroup is ours to divide, by either driver.
            systemd_cgroup: false,
        };
        self.world.makes_cgroup_of(self.pod).ensure(&self.world.group(self.pod)).await?;
        let controller = self.world.controller(self.pod)?;
        let container = Container { id: self.turn.id.clone(), bundle: self.turn.bundle.clone() };
        controller.prepare(&place(self.pod), &container).await?;
        self.create_task(controller.as_ref(), task).await
    }

    /// A supervisor that is gone is replaced, once.
    async fn create_task(
        &self,
        controller: &dyn Controller,
        task: CreateTask,
    ) -> Result<(), Error> {
        let (shim, within) = (self.world.shim(self.pod)?, self.world.host.shim_deadline);
        match shim.create(task.clone(), within).await {
            Err(shim_api::Error::Unreachable { .. }) => {
                controller.supervise(&place(self.pod)).await?;
                shim.create(task, within).await?;
            }
            created => drop(created?),
        }
        Ok(())
    }

    /// A shim that is gone took its tasks with it, but for what still runs in their cgroups.
    async fn unmake_task(&mut self) -> Result<(), Error> {
        if let Ok(shim) = self.world.shim(self.pod) {
            match shim.delete(self.turn.id.as_str(), self.world.host.shim_deadline).await {
                Err(error) if error.class() != Class::Unavailable => return Err(error.into()),
                _ => {}
            }
        }
        let controller = self.world.controller(self.pod)?;
        controller.purge(&place(self.pod), &self.turn.id).await?;
        self.world.unmake_cgroup(&self.turn.cgroup).await
    }
}
