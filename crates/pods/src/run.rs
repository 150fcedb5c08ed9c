//! Making, stopping and removing pods.

use std::{sync::Arc, time::Duration};

use names::PodId;
use tokio::sync::RwLockReadGuard;

use crate::{
    Error, Pods,
    host::random,
    owner::Owner,
    plan::PodPlan,
    pod::{Network, PodRecord, PodStep},
    pod_steps::{PodWork, has_plain_network, place},
    step::{self, Phase},
};

impl Pods {
    /// Makes and starts a pod. A call with the name of a pod that is being made, or is ready, and with
    /// the same plan, gets that pod; with another plan it is refused.
    pub async fn run_pod(&self, plan: PodPlan) -> Result<PodId, Error> {
        let this = self.clone();
        self.to_the_end(async move { this.run(plan).await }).await
    }

    async fn run(&self, plan: PodPlan) -> Result<PodId, Error> {
        self.check_pod(&plan).await?;
        let id = PodId::from_bytes(random()?);
        loop {
            let by = match self.inner.world.pod_names.reserve(&plan.name, &id) {
                Ok(()) => break,
                Err(by) => by,
            };
            if let Some(joined) = self.join(&plan, &by).await? {
                return Ok(joined);
            }
        }
        let made = self.make_pod(id.clone(), plan.clone()).await;
        if made.is_err() && !self.knows_pod(&id) {
            self.inner.world.pod_names.release(&plan.name, &id);
        }
        made
    }

    /// The pod that has the name, if it is the one that is asked for; none if it has just gone away.
    async fn join(&self, plan: &PodPlan, by: &PodId) -> Result<Option<PodId>, Error> {
        let taken = || Error::NameTaken { name: plan.name.to_string(), by: by.to_string() };
        let Some(pod) = self.pod_owner(by) else {
            // It is between its reservation and its record, or on its way out.
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Ok(None);
        };
        if pod.snapshot().plan != *plan {
            return Err(taken());
        }
        let record = pod.hold().await;
        if record.is_half_made() || !self.knows_pod(by) {
            // A failed run that is gone now, or one that a killed daemon left and that is being undone.
            drop(record);
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Ok(None);
        }
        if record.is_ready() { Ok(Some(by.clone())) } else { Err(taken()) }
    }

    async fn make_pod(&self, id: PodId, plan: PodPlan) -> Result<PodId, Error> {
        let record = self.plan_pod(id.clone(), plan)?;
        let owner = self.own(record);
        // First, so that addresses that it reserves are not taken for those of a pod that is gone.
        self.add_pod(&id, &owner);
        let turn = owner.turn().await.ok_or_else(|| Error::NoSuchPod(id.to_string()))?;
        let mut work = PodWork::new(&self.inner.world, turn);
        if let Err(error) = work.plan_network().await {
            self.drop_pod(&id);
            return Err(error);
        }
        if let Err(failed) = step::make_all(&mut work).await {
            work.let_go_of_addresses().await;
            return Err(self.failed(&id, work, failed));
        }
        let next_may_be_alike = has_plain_network(&work.turn);
        drop(work);
        self.watch_pod(owner);
        if next_may_be_alike {
            self.inner.world.spare.renew();
        }
        Ok(id)
    }

    fn failed(&self, id: &PodId, work: PodWork<'_>, failed: step::Failed) -> Error {
        match failed.stuck {
            None => self.drop_pod(id),
            Some(stuck) => {
                let why = stuck.chain();
                tracing::error!(pod = %id, why, "a pod that failed cannot be undone yet; it is kept as not ready");
                work.turn.show();
            }
        }
        failed.cause
    }

    /// Everything that can be decided, or refused, before anything is made.
    fn plan_pod(&self, id: PodId, plan: PodPlan) -> Result<PodRecord, Error> {
        let world = &self.inner.world;
        let (handler, made) = world.handler(&plan.handler)?;
        let controller = made.controller.clone();
        let driver = world.host.cgroups.driver();
        let cgroup = world.host.cgroups.by(driver).place(&id, plan.cgroup_parent.as_deref())?;
        let (netns, userns) = (world.netns(&id), world.userns(&id));
        Ok(PodRecord {
            created_at: ::names::now(),
            boot: world.host.boot.clone(),
            phase: Phase::Making(PodStep::Record),
            handler,
            controller,
            state_dir: world.state_dir(&id),
            cgroup,
            owns_cgroup: plan.cgroup_parent.is_none(),
            driver,
            overhead: plan.overhead.clone(),
            resources: plan.resources.clone(),
            netns: (!plan.namespaces.host_network()).then_some(netns),
            userns: plan.namespaces.user.is_some().then_some(userns),
            network: Network::Host,
            addresses: Vec::new(),
            started: None,
            exited: None,
            id,
            plan,
        })
    }

    /// Stops a pod and all that runs in it; it is so when this returns. An unknown pod is stopped.
    pub async fn stop_pod(&self, id: &str) -> Result<(), Error> {
        let Some(pod) = self.find_pod(id)? else { return Ok(()) };
        let this = self.clone();
        self.to_the_end(async move { this.stop(&pod).await }).await
    }

    async fn stop(&self, pod: &Arc<Owner<PodRecord>>) -> Result<(), Error> {
        let id = pod.snapshot().id.clone();
        // Containers first, while their shim is there to tell how they ended. None can be made or
        // started from here on, since both need to hold the pod.
        let Some(turn) = pod.turn().await else { return Ok(()) };
        let mut work = PodWork::new(&self.inner.world, turn);
        self.stop_containers_of(&id).await?;
        step::unmake(&mut work, Some(PodStep::STOPPED)).await
    }

    /// Removes a pod and its containers, stopping them first. An unknown pod is removed.
    pub async fn remove_pod(&self, id: &str) -> Result<(), Error> {
        let Some(pod) = self.find_pod(id)? else { return Ok(()) };
        let this = self.clone();
        self.to_the_end(async move { this.remove(&pod).await }).await
    }

    async fn remove(&self, pod: &Arc<Owner<PodRecord>>) -> Result<(), Error> {
        let id = pod.snapshot().id.clone();
        let Some(turn) = pod.turn().await else { return Ok(()) };
        let mut work = PodWork::new(&self.inner.world, turn);
        self.remove_containers_of(&id).await?;
        step::unmake(&mut work, None).await?;
        let name = work.turn.plan.name.clone();
        self.drop_pod(&id);
        self.inner.world.pod_names.release(&name, &id);
        Ok(())
    }

    /// Watches the sandbox, and tells in the record when it ends by itself.
    pub(crate) fn watch_pod(&self, owner: Arc<Owner<PodRecord>>) {
        let this = self.clone();
        // Not among the operations that a daemon which ends waits for: it may last for years.
        tokio::spawn(async move {
            let record = owner.snapshot();
            let Ok(controller) = this.inner.world.controller(&record) else { return };
            let exit = match controller.wait(&place(&record)).await {
                Ok(exit) => exit,
                // Its shim is gone, and with it whoever could tell more.
                Err(error) => {
                    tracing::warn!(pod = %record.id, %error, "the sandbox cannot be watched any more");
                    controllers::Exit { code: 255, at: ::names::now() }
                }
            };
            this.sandbox_ended(&owner, exit).await;
        });
    }

    async fn sandbox_ended(&self, owner: &Owner<PodRecord>, exit: controllers::Exit) {
        let Some(mut turn) = owner.turn().await else { return };
        if turn.phase != Phase::Made || turn.exited.is_some() {
            return;
        }
        tracing::warn!(pod = %turn.id, code = exit.code, "the sandbox has ended by itself");
        turn.exited = Some(exit);
        if let Err(error) = self.inner.world.pod_records.put(turn.id.as_str(), &turn).await {
            tracing::error!(pod = %turn.id, %error, "the end of the sandbox could not be recorded");
        }
        turn.show();
    }
}

/// A ready pod, which stays as it is for as long as this is held.
pub(crate) async fn ready(pod: &Owner<PodRecord>) -> Result<RwLockReadGuard<'_, PodRecord>, Error> {
    let record = pod.hold().await;
    if record.is_ready() {
        return Ok(record);
    }
    Err(Error::precondition(format!("pod {} is not ready", record.id.short())))
}
