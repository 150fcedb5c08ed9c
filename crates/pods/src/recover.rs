//! After a start of the daemon: what is in the records is made true again.
//!
//! What was being made is unmade, what was being unmade is unmade further; pods and containers that
//! may live are asked for, and watched again. Records are shown at once, as they were; each is
//! brought up to date on a task of its own, so that one supervisor that hangs holds up nobody else.

use std::{collections::HashSet, fs, sync::Arc, time::Duration};

use controllers::Status;
use names::{Class, ContainerId, PodId};

use crate::{
    Error, Pods,
    container::{ContainerRecord, Death, Event, Life},
    container_steps::ContainerWork,
    containers::name_of,
    owner::Owner,
    pod::{PodRecord, PodStep},
    pod_steps::{PodWork, place},
    step::{self, Phase, Step},
};

/// How long a supervisor may take to say how things stand. Its pod is shown as recorded until then.
const PATIENCE: Duration = Duration::from_secs(30);

impl Pods {
    /// Reads the records, shows what they say, and sets about making them true. Returns when the
    /// records are read; the rest goes on by itself.
    pub async fn recover(&self) -> Result<(), Error> {
        let pods = self.inner.world.pod_records.scan().await?;
        let containers = self.inner.world.container_records.scan().await?;
        let known: HashSet<PodId> = pods.iter().map(|(_, pod)| pod.id.clone()).collect();
        let any_lives = pods.iter().any(|(_, pod)| pod.boot == self.inner.world.host.boot);
        let mut owners = Vec::new();
        for (_, record) in pods {
            owners.push(self.readmit_pod(record));
        }
        for (_, record) in containers {
            if known.contains(&record.pod) {
                self.readmit_container(record);
            } else {
                // Its pod's record is in the quarantine: what it owned goes when that is removed.
                tracing::error!(container = %record.id, pod = %record.pod, "its pod's record cannot be read");
            }
        }
        for owner in owners {
            let this = self.clone();
            self.inner.tasks.spawn(async move { this.recover_pod(owner).await });
        }
        self.sweep(&known, any_lives).await;
        Ok(())
    }

    /// What another boot made is gone, and is never shown as if it were not. What it was making may have
    /// been made, and told to somebody, in the last moment before the machine went down.
    fn readmit_pod(&self, mut record: PodRecord) -> Arc<Owner<PodRecord>> {
        let id = record.id.clone();
        if let Err(by) = self.inner.world.pod_names.reserve(&record.plan.name, &id) {
            tracing::error!(pod = %id, %by, "two pods have one name");
        }
        if record.boot != self.inner.world.host.boot {
            record
                .exited
                .get_or_insert_with(|| controllers::Exit { code: 255, at: ::names::now() });
            record.phase = match record.phase {
                Phase::Making(step) => Phase::Unmaking(step),
                // What its Stop gave back may be there again: that the record is on the disk does not
                // say that the removal of a lease is.
                Phase::Rests(_) => Phase::Unmaking(PodStep::last()),
                phase => phase,
            };
        }
        let owner = self.own(record);
        self.add_pod(&id, &owner);
        owner
    }

    fn readmit_container(&self, mut record: ContainerRecord) {
        let id = record.id.clone();
        if record.boot != self.inner.world.host.boot {
            let death = Death::unseen(::names::now(), "the machine went down");
            let life = record.life.clone().on(Event::Died(death));
            record.life = life.unwrap_or_else(|impossible| impossible.life);
            if let Phase::Making(_) = record.phase {
                record.phase = Phase::Made;
            }
        }
        if let Err(by) = self.inner.world.container_names.reserve(&name_of(&record), &id) {
            tracing::error!(container = %id, %by, "two containers of a pod have one name");
        }
        self.add_container(&id, &self.own(record));
    }

    /// One pod and its containers. What is half made of the containers goes first, since it may use
    /// what is half made of the pod.
    async fn recover_pod(&self, owner: Arc<Owner<PodRecord>>) {
        let id = owner.snapshot().id.clone();
        // A Remove may come first, for its record is shown.
        let Some(turn) = owner.turn().await else { return };
        let rebooted = turn.boot != self.inner.world.host.boot;
        for container in self.containers_of(&id) {
            self.recover_container(&turn, &container, rebooted).await;
        }
        match turn.phase {
            Phase::Making(_) | Phase::Undoing(_) => {
                let name = turn.plan.name.clone();
                let mut work = PodWork::new(&self.inner.world, turn);
                match step::unmake(&mut work, None).await {
                    Ok(()) => {
                        self.drop_pod(&id);
                        self.inner.world.pod_names.release(&name, &id);
                        tracing::info!(pod = %id, "a pod that was being made when the daemon died was undone");
                    }
                    Err(error) => keep(&id, &error),
                }
            }
            // A Stop or a Remove was under way. Both will be asked for again; what a Stop frees is
            // freed now, for others to have.
            Phase::Unmaking(_) => {
                let mut work = PodWork::new(&self.inner.world, turn);
                if let Err(error) = step::unmake(&mut work, Some(PodStep::STOPPED)).await {
                    keep(&id, &error);
                }
            }
            Phase::Rests(_) => {}
            Phase::Made if rebooted => {
                let mut work = PodWork::new(&self.inner.world, turn);
                if let Err(error) = step::unmake(&mut work, Some(PodStep::STOPPED)).await {
                    keep(&id, &error);
                }
            }
            Phase::Made => {
                self.renew_limits(&turn).await;
                drop(turn);
                self.ask_pod(owner).await;
            }
        }
    }

    /// Whether the sandbox of a pod that was ready still runs.
    async fn ask_pod(&self, owner: Arc<Owner<PodRecord>>) {
        let record = owner.snapshot();
        if record.exited.is_some() {
            return;
        }
        let Ok(controller) = self.inner.world.controller(&record) else { return };
        let asked = tokio::time::timeout(PATIENCE, controller.status(&place(&record))).await;
        match asked {
            Ok(Ok(Status::Running)) | Err(_) => {}
            Ok(Ok(status)) => {
                tracing::warn!(pod = %record.id, ?status, "the sandbox ended meanwhile")
            }
            Ok(Err(error)) => {
                tracing::warn!(pod = %record.id, %error, "the sandbox does not answer")
            }
        }
        // The watch finds out the same, and tells it in the record.
        self.watch_pod(owner);
    }

    async fn recover_container(
        &self,
        pod: &PodRecord,
        container: &Arc<Owner<ContainerRecord>>,
        rebooted: bool,
    ) {
        let Some(turn) = container.turn().await else { return };
        let id = turn.id.clone();
        // A container is unmade for no other reason than that it failed, or is to be removed.
        if !matches!(turn.phase, Phase::Made) {
            let name = name_of(&turn);
            let mut work = ContainerWork::new(&self.inner.world, pod, turn);
            match step::unmake(&mut work, None).await {
                Ok(()) => self.drop_container(&id, &name),
                Err(error) => {
                    tracing::error!(container = %id, error = error.chain(), "what was half made of it cannot be undone yet")
                }
            }
            return;
        }
        if rebooted {
            self.record(&turn).await;
        }
        let over = turn.life.is_over();
        drop(turn);
        if over {
            return;
        }
        self.ask_container(pod, container).await;
    }

    /// Whether a container that had not ended still has not, and whether it was started in the
    /// moment before the daemon died.
    async fn ask_container(&self, pod: &PodRecord, container: &Arc<Owner<ContainerRecord>>) {
        let record = container.snapshot();
        let answer = match self.inner.world.shim(pod) {
            Ok(shim) => shim.state(record.id.as_str(), PATIENCE).await,
            Err(error) => {
                tracing::debug!(container = %record.id, %error, "its pod does not run");
                return self.died(container, self.last_word(&record)).await;
            }
        };
        match answer {
            Ok(state) => match (state.status, state.exit) {
                (_, Some(exit)) => self.died(container, Death::seen(exit)).await,
                (shim_api::Status::Running, _) if record.life == Life::Created => {
                    self.was_started(container, state.pid).await;
                    self.watch_container(Arc::clone(container));
                }
                _ => self.watch_container(Arc::clone(container)),
            },
            Err(error) if error.class() == Class::DeadlineExceeded => {
                self.watch_container(Arc::clone(container));
            }
            Err(error) if error.class() == Class::NotFound => {
                self.died(container, self.last_word(&record)).await;
            }
            Err(error) => {
                let death = self.orphaned(&record, &error);
                self.died(container, death).await;
            }
        }
    }

    fn last_word(&self, record: &ContainerRecord) -> Death {
        let unseen = || Death::unseen(::names::now(), "nobody saw it end");
        self.recorded_exit(record).unwrap_or_else(unseen)
    }

    async fn was_started(&self, container: &Arc<Owner<ContainerRecord>>, pid: u32) {
        let Some(mut turn) = container.turn().await else { return };
        turn.life = Life::Running { pid, started: ::names::now() };
        self.record(&turn).await;
        turn.show();
    }

    async fn record(&self, container: &ContainerRecord) {
        if let Err(error) =
            self.inner.world.container_records.put(container.id.as_str(), container).await
        {
            tracing::error!(container = %container.id, %error, "what became of it could not be recorded");
        }
    }

    /// Frees what belongs to no record: what was reserved in the instant before its record would have
    /// been written.
    async fn sweep(&self, known: &HashSet<PodId>, any_lives: bool) {
        if let Err(error) = self.sweep_bridge(None).await {
            tracing::warn!(error = error.chain(), "leases of no pod cannot be freed yet");
        }
        if any_lives {
            self.make_bridge().await;
        }
        self.sweep_images(known).await;
    }

    /// Somebody may have flushed the rules meanwhile; the pods that live need them.
    async fn make_bridge(&self) {
        let Some(bridge) = &self.inner.world.host.bridge else { return };
        if let Err(error) = bridge.make().await {
            tracing::warn!(%error, "the built-in bridge cannot be made; pods on it may lack their network");
        }
    }

    /// Root filesystems of containers that have no record: theirs is written before, so these are of
    /// records that were set aside or lost. They are unmounted if their pod's folder is gone too;
    /// else they go with the quarantined record.
    async fn sweep_images(&self, known: &HashSet<PodId>) {
        let images = &self.inner.world.host.images;
        for id in images.containers() {
            let of_pod = id.as_str().parse().is_ok_and(|pod| known.contains(&pod));
            if of_pod || self.knows_container(&id) || self.has_bundle(&id) {
                continue;
            }
            let nowhere = self.inner.world.host.state.join("nowhere");
            match images.unmount(&id, &nowhere).await {
                Ok(()) => {
                    tracing::info!(container = %id, "a root filesystem of no container was freed")
                }
                Err(error) => {
                    tracing::warn!(container = %id, %error, "a root filesystem of no container cannot be freed yet")
                }
            }
        }
    }

    /// Whether some pod's folder has a bundle of that container.
    fn has_bundle(&self, id: &ContainerId) -> bool {
        let pods = fs::read_dir(self.inner.world.host.state.join("pods"));
        let mut pods = pods.into_iter().flatten().flatten();
        pods.any(|pod| pod.path().join("containers").join(id.as_str()).exists())
    }
}

fn keep(id: &PodId, error: &Error) {
    tracing::error!(pod = %id, error = error.chain(), "the pod cannot be undone yet; it is kept as not ready");
}
