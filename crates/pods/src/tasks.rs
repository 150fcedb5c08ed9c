//! What can be asked of a container that runs: a command, new limits, its log opened anew.

use std::time::Duration;

use shim_api::{AttachStart, Exec, ExecOutput, ExecStart, ExecSync, Size, streams::Streams};

use crate::{
    Error, Pods,
    container::{ContainerRecord, Life},
    limits,
    plan::Resources,
};

impl Pods {
    /// Runs a command in a running container to its end. When the timeout is over it is killed, and
    /// that is an error of the class DeadlineExceeded. A client that goes away kills it too.
    pub async fn exec_sync(
        &self,
        id: &str,
        args: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, Error> {
        if args.is_empty() {
            return Err(Error::rejected("cmd", "is empty"));
        }
        let record = self.known_container(id)?.snapshot();
        must_run(&record)?;
        let pod = self.pod_of(&record)?.snapshot();
        let shim = self.inner.world.shim(&pod)?;
        Ok(shim.exec_sync(record.id.as_str(), ExecSync { args, timeout }).await?)
    }

    /// Begins a command in a running container, whose streams are the caller's. It is killed when what is
    /// given is dropped, or podbayd ends.
    pub async fn exec(&self, id: &str, start: ExecStart) -> Result<Exec, Error> {
        if start.args.is_empty() {
            return Err(Error::rejected("cmd", "is empty"));
        }
        let record = self.known_container(id)?.snapshot();
        must_run(&record)?;
        let pod = self.pod_of(&record)?.snapshot();
        Ok(self.inner.world.shim(&pod)?.exec(record.id.as_str(), start).await?)
    }

    /// Our ends of the streams of a container that was created, or runs. What it said before is in its
    /// log.
    pub async fn attach(&self, id: &str, start: AttachStart) -> Result<Streams, Error> {
        let record = self.known_container(id)?.snapshot();
        if record.life.is_over() {
            let why = format!("container {} has ended", record.id.short());
            return Err(Error::precondition(why));
        }
        let pod = self.pod_of(&record)?.snapshot();
        Ok(self.inner.world.shim(&pod)?.attach(record.id.as_str(), start).await?)
    }

    /// Sets the size of a container's own terminal.
    pub async fn resize(&self, id: &str, size: Size) -> Result<(), Error> {
        let record = self.known_container(id)?.snapshot();
        let pod = self.pod_of(&record)?.snapshot();
        let within = self.inner.world.host.shim_deadline;
        Ok(self.inner.world.shim(&pod)?.resize(record.id.as_str(), size, within).await?)
    }

    /// Returns when the container has ended.
    pub async fn ended(&self, id: &str) -> Result<(), Error> {
        let mut shown = self.known_container(id)?.watch();
        // If it is removed meanwhile, it has ended too.
        let _ = shown.wait_for(|record| record.life.is_over()).await;
        Ok(())
    }

    /// Opens the container's log by its path anew, after the kubelet has renamed the file.
    pub async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let record = self.known_container(id)?.snapshot();
        must_run(&record)?;
        let pod = self.pod_of(&record)?.snapshot();
        let within = self.inner.world.host.shim_deadline;
        Ok(self.inner.world.shim(&pod)?.reopen_log(record.id.as_str(), within).await?)
    }

    /// Changes the limits of a container that was created, or runs. All of them hold when this
    /// returns, or none was changed.
    pub async fn update_container(&self, id: &str, new: Resources) -> Result<(), Error> {
        let container = self.known_container(id)?;
        let this = self.clone();
        self.to_the_end(async move {
            let gone = || Error::NoSuchContainer(container.snapshot().id.to_string());
            let mut turn = container.turn().await.ok_or_else(gone)?;
            if turn.life.is_over() {
                let why = format!("container {} has ended", turn.id.short());
                return Err(Error::precondition(why));
            }
            let merged = limits::merge(&turn.resources, &new);
            limits::check(&merged, "linux")?;
            let pod = this.pod_of(&turn)?.snapshot();
            let shim = this.inner.world.shim(&pod)?;
            let host = &this.inner.world.host;
            let mut left_out = Vec::new();
            let asked = oci::resources(&limits::oci(&merged), &host.node, &mut left_out)?;
            shim.update(turn.id.as_str(), &asked, host.shim_deadline).await?;
            turn.resources = merged;
            this.inner.world.container_records.put(turn.id.as_str(), &turn).await?;
            turn.show();
            Ok(())
        })
        .await
    }
}

pub(crate) fn must_run(record: &ContainerRecord) -> Result<(), Error> {
    if matches!(record.life, Life::Running { .. }) {
        return Ok(());
    }
    Err(Error::precondition(format!("container {} does not run", record.id.short())))
}
