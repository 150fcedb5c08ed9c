//! New limits for a pod in whole, told after the kubelet has changed its mind about them.

use std::sync::Arc;

use names::Class;

use crate::{
    Error, Pods, cgroups::Changed, limits, owner::Owner, plan::Resources, pod::PodRecord,
    pod_steps::place,
};

/// What a pod may use from now on. What is none, or says nothing, stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Resize {
    /// What the sandbox itself may use.
    pub overhead: Option<Resources>,
    /// What its containers may use together.
    pub resources: Option<Resources>,
}

impl Pods {
    /// Changes what a pod may use. Its cgroup is limited anew where that is ours: who named another has
    /// limited it already. All holds when this returns, and is recorded, or nothing has changed.
    pub async fn resize_pod(&self, id: &str, new: Resize) -> Result<(), Error> {
        let pod = self.find_pod(id)?.filter(|pod| pod.snapshot().is_shown());
        let pod = pod.ok_or_else(|| Error::NoSuchPod(id.to_owned()))?;
        let this = self.clone();
        self.to_the_end(async move { this.resize_one(&pod, &new).await }).await
    }

    async fn resize_one(&self, pod: &Arc<Owner<PodRecord>>, new: &Resize) -> Result<(), Error> {
        let gone = || Error::NoSuchPod(pod.snapshot().id.to_string());
        let mut turn = pod.turn().await.ok_or_else(gone)?;
        if !turn.is_ready() {
            return Err(Error::precondition(format!("pod {} is not ready", turn.id.short())));
        }
        let mut resized = turn.clone();
        resized.overhead = merged(&turn.overhead, new.overhead.as_ref());
        resized.resources = merged(&turn.resources, new.resources.as_ref());
        self.check(&resized.overhead, "overhead")?;
        self.check(&resized.resources, "resources")?;
        // The intent comes first: should podbayd be killed, the next start does what is recorded.
        self.inner.world.pod_records.put(turn.id.as_str(), &resized).await?;
        if let Err(error) = self.set_limits(&resized, &turn).await {
            if let Err(error) = self.inner.world.pod_records.put(turn.id.as_str(), &turn).await {
                tracing::error!(pod = %turn.id, %error, "limits that were refused stay recorded");
            }
            return Err(error);
        }
        *turn = resized;
        turn.show();
        Ok(())
    }

    /// Sees to it that a pod has the limits that are recorded: the last that it was given may not all
    /// have been set when podbayd was killed.
    pub(crate) async fn renew_limits(&self, pod: &PodRecord) {
        if pod.overhead == pod.plan.overhead && pod.resources == pod.plan.resources {
            return;
        }
        if let Err(error) = self.set_limits(pod, pod).await {
            tracing::warn!(pod = %pod.id, error = error.chain(), "its limits cannot be set again");
        }
    }

    /// Sets all, or leaves all as it was before.
    async fn set_limits(&self, pod: &PodRecord, before: &PodRecord) -> Result<(), Error> {
        let change = self.limit(pod, before).await?;
        let told = self.tell_controller(pod).await;
        if told.is_err() {
            change.undo().await;
        }
        told
    }

    /// Finds what is wrong with limits before anything is done by them.
    fn check(&self, asked: &Resources, field: &str) -> Result<(), Error> {
        limits::check(asked, field)?;
        let node = &self.inner.world.host.node;
        let checked = oci::resources(&limits::oci(asked), node, &mut Vec::new());
        checked.map(drop).map_err(|rejected| {
            let text = rejected.to_string();
            let why = text.strip_prefix(rejected.field()).unwrap_or(&text);
            let field = rejected.field().replacen("config.linux.resources", field, 1);
            Error::rejected(field, why.trim_start_matches(": "))
        })
    }

    /// Limits the cgroup, if it is ours.
    async fn limit(&self, pod: &PodRecord, before: &PodRecord) -> Result<Changed, Error> {
        let world = &self.inner.world;
        let limits = limits::of_pod(&pod.overhead, &pod.resources);
        for what in limits::clip(&world.host.node, limits).1 {
            tracing::warn!(pod = %pod.id, what, "left out");
        }
        let before = world.group(before).limits;
        world.makes_cgroup_of(pod).limit(&world.group(pod), &before).await
    }

    /// Not every controller has a use for it.
    async fn tell_controller(&self, pod: &PodRecord) -> Result<(), Error> {
        let world = &self.inner.world;
        let whole = limits::sum(&pod.overhead, &pod.resources);
        let whole = oci::resources(&limits::oci(&whole), &world.host.node, &mut Vec::new())?;
        match world.controller(pod)?.update(&place(pod), &whole).await {
            Err(error) if error.class() != Class::Unimplemented => {
                Err(Error::from(error).at("telling the sandbox of its limits"))
            }
            _ => Ok(()),
        }
    }
}

fn merged(old: &Resources, new: Option<&Resources>) -> Resources {
    new.map_or_else(|| old.clone(), |new| limits::merge(old, new))
}
