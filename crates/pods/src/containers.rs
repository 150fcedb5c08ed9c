//! Making, starting, stopping and removing containers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use names::{Class, ContainerId, PodId};
use shim_api::Exit;

use crate::{
    Error, Features, Pods,
    container::{ContainerRecord, ContainerStep, Death, Event, Life, Reason},
    container_steps::ContainerWork,
    host::random,
    owner::Owner,
    plan::{ContainerPlan, Sharing},
    pod::PodRecord,
    run::ready,
    step::{self, Phase},
    volumes,
};

type Container = Arc<Owner<ContainerRecord>>;

const SIGKILL: i32 = 9;

/// How long a killed container may take to be gone before a Stop gives up. Only a process stuck in
/// the kernel takes longer.
const DEATH: Duration = Duration::from_secs(30);

impl Pods {
    /// Makes a container in a ready pod. A second call with the same name and plan gets the container
    /// that the first has made; with another plan it is refused.
    pub async fn create_container(
        &self,
        pod: &str,
        plan: ContainerPlan,
    ) -> Result<ContainerId, Error> {
        let owner = self.find_pod(pod)?.ok_or_else(|| Error::NoSuchPod(pod.to_owned()))?;
        let this = self.clone();
        self.to_the_end(async move {
            let pod = ready(&owner).await?;
            this.create(&pod, plan).await
        })
        .await
    }

    async fn create(&self, pod: &PodRecord, plan: ContainerPlan) -> Result<ContainerId, Error> {
        let id = ContainerId::from_bytes(random()?);
        let features = self.features_of(self.inner.world.handler(&pod.handler)?.1).await;
        let record = self.plan_container(id.clone(), pod, plan, features)?;
        let images = &self.inner.world.host.images;
        volumes::check(images, &record.plan, &record.volumes).await?;
        self.inner.world.expect_a_move(&record.runtime);
        let name = name_of(&record);
        while let Err(by) = self.inner.world.container_names.reserve(&name, &id) {
            if let Some(joined) = self.join_container(&record, &by).await? {
                return Ok(joined);
            }
        }
        let pid_target = self.pid_target(&record);
        let owner = self.own(record);
        self.add_container(&id, &owner);
        let turn = owner.turn().await.ok_or_else(|| Error::NoSuchContainer(id.to_string()))?;
        let mut work = ContainerWork::new(&self.inner.world, pod, turn);
        work.pid_target = pid_target;
        let Err(failed) = step::make_all(&mut work).await else {
            drop(work);
            self.watch_container(owner);
            return Ok(id);
        };
        match failed.stuck {
            None => self.drop_container(&id, &name),
            Some(stuck) => {
                let why = stuck.chain();
                tracing::error!(container = %id, why, "a container that failed cannot be undone yet; it is kept");
                work.turn.life = Life::Exited { started: None, death: not_started(&failed.cause) };
                work.turn.show();
            }
        }
        Err(failed.cause)
    }

    /// The container that has the name, if it is the one that is asked for; none if it goes away.
    async fn join_container(
        &self,
        asked: &ContainerRecord,
        by: &ContainerId,
    ) -> Result<Option<ContainerId>, Error> {
        let plan = &asked.plan;
        let taken = || Error::NameTaken {
            name: format!("{} (attempt {})", plan.name, plan.attempt),
            by: by.to_string(),
        };
        if let Some(other) = self.container_owner(by) {
            let record = other.hold().await;
            if record.is_shown() {
                let same = record.plan == *plan;
                let fresh = record.phase == Phase::Made && record.life == Life::Created;
                return if same && fresh { Ok(Some(by.clone())) } else { Err(taken()) };
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(None)
    }

    /// Everything that can be decided, or refused, before anything is made.
    fn plan_container(
        &self,
        id: ContainerId,
        pod: &PodRecord,
        plan: ContainerPlan,
        features: Features,
    ) -> Result<ContainerRecord, Error> {
        let world = &self.inner.world;
        let image = world.host.images.find(&plan.image).ok_or_else(|| Error::Refused {
            class: Class::NotFound,
            why: format!("no image {}: pull it first", plan.image),
        })?;
        let image_ref =
            image.digests.first().map_or_else(|| image.id.to_string(), ToString::to_string);
        let log = match (&pod.plan.log_directory, &plan.log_path) {
            (Some(directory), Some(path)) => Some(directory.join(path)),
            _ => None,
        };
        self.check_pid_target(pod, &plan)?;
        check_user_namespace(pod, &plan)?;
        crate::spec::check(&world.host, pod, &plan, &image, features)?;
        let stop_signal =
            crate::signals::stop_signal(plan.stop_signal, Some(&image.config.stop_signal))?;
        Ok(ContainerRecord {
            bundle: pod.state_dir.join("containers").join(id.as_str()),
            cgroup: pod.cgroup.join(id.as_str()),
            id,
            pod: pod.id.clone(),
            created_at: ::names::now(),
            boot: world.host.boot.clone(),
            phase: Phase::Making(ContainerStep::Record),
            image: image.id.clone(),
            image_ref,
            volumes: volumes::find(&world.host.images, &plan)?,
            log,
            runtime: world.handler(&pod.handler)?.1.runtime.clone(),
            user: None,
            stop_signal,
            resources: plan.resources.clone(),
            life: Life::Created,
            plan,
        })
    }

    /// A container whose processes are to be shared must be in the same pod, and run.
    fn check_pid_target(&self, pod: &PodRecord, plan: &ContainerPlan) -> Result<(), Error> {
        let Sharing::Target(target) = &plan.security.pid else { return Ok(()) };
        let field = "config.linux.security_context.namespace_options.target_id";
        let other = self.find_container(target)?.map(|other| other.snapshot());
        let other = other.filter(|other| other.pod == pod.id).ok_or_else(|| {
            Error::rejected(field, format!("there is no container {target} in this pod"))
        })?;
        crate::tasks::must_run(&other)
    }

    fn pid_target(&self, record: &ContainerRecord) -> Option<u32> {
        let Sharing::Target(target) = &record.plan.security.pid else { return None };
        match self.find_container(target).ok()??.snapshot().life {
            Life::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Lets a created container run.
    pub async fn start_container(&self, id: &str) -> Result<(), Error> {
        let container = self.known_container(id)?;
        let this = self.clone();
        self.to_the_end(async move { this.start(&container).await }).await
    }

    async fn start(&self, container: &Container) -> Result<(), Error> {
        let owner = self.pod_of(&container.snapshot())?;
        let pod = ready(&owner).await?;
        let gone = || Error::NoSuchContainer(container.snapshot().id.to_string());
        let mut turn = container.turn().await.ok_or_else(gone)?;
        if turn.phase != Phase::Made || turn.life != Life::Created {
            let why = format!("container {} is not in the created state", turn.id.short());
            return Err(Error::precondition(why));
        }
        let shim = self.inner.world.shim(&pod)?;
        let within = self.inner.world.host.shim_deadline;
        // Taken before, so that not even the shortest life ends before it began.
        let at = ::names::now();
        let (event, result) = match shim.start(turn.id.as_str(), within).await {
            Ok(pid) => (Event::Started { pid, at }, Ok(())),
            Err(error) => {
                let error = Error::from(error).at("starting the container");
                (Event::Died(not_started(&error)), Err(error))
            }
        };
        let life = turn.life.clone();
        turn.life = life.on(event).unwrap_or_else(|impossible| impossible.life);
        self.inner.world.container_records.put(turn.id.as_str(), &turn).await?;
        turn.show();
        result
    }

    /// Watches a container's process, and tells in the record when it has ended.
    pub(crate) fn watch_container(&self, container: Container) {
        let this = self.clone();
        tokio::spawn(async move {
            let record = container.snapshot();
            let Ok(pod) = this.pod_of(&record) else { return };
            let death = match this.inner.world.shim(&pod.snapshot()) {
                Ok(shim) => match shim.wait(record.id.as_str()).await {
                    Ok(exit) => Some(Death::seen(exit)),
                    // It was deleted: by a Remove, or when its end was seen.
                    Err(error) if error.class() == Class::NotFound => this.recorded_exit(&record),
                    Err(error) => Some(this.orphaned(&record, &error)),
                },
                Err(_) => this.recorded_exit(&record),
            };
            this.died(&container, death.unwrap_or_else(|| Death::unseen(::names::now(), ""))).await;
        });
    }

    /// The exit that the shim has written beside the bundle.
    pub(crate) fn recorded_exit(&self, record: &ContainerRecord) -> Option<Death> {
        Exit::read(&record.bundle).ok().flatten().map(Death::seen)
    }

    /// The end of a container whose shim is gone: as the shim recorded it, or else by our hand, since
    /// nobody holds its output or would see it end.
    pub(crate) fn orphaned(&self, record: &ContainerRecord, error: &shim_api::Error) -> Death {
        self.recorded_exit(record).unwrap_or_else(|| {
            tracing::error!(container = %record.id, %error, "its shim is gone; what is left of it is killed");
            let group = self.inner.world.cgroup(&record.cgroup);
            if let Err(error) = group.and_then(|group| {
                crate::error::Context::on(group.kill(), "killing the cgroup", &record.cgroup)
            }) {
                tracing::error!(container = %record.id, error = error.chain(), "it may still run");
            }
            Death { code: 137, ..Death::unseen(::names::now(), "the supervisor of the pod was killed") }
        })
    }

    pub(crate) async fn died(&self, container: &Container, death: Death) {
        let Some(mut turn) = container.turn().await else { return };
        let life = turn.life.clone();
        let Ok(life) = life.on(Event::Died(death)) else { return };
        turn.life = life;
        if let Err(error) = self.inner.world.container_records.put(turn.id.as_str(), &turn).await {
            tracing::error!(container = %turn.id, %error, "the container's end could not be recorded");
        }
        turn.show();
        drop(turn);
        self.release_task(&container.snapshot()).await;
    }

    /// Frees what the shim holds for a container that has ended. Should that fail, the Remove will do
    /// it.
    async fn release_task(&self, record: &ContainerRecord) {
        let Ok(pod) = self.pod_of(record) else { return };
        let Ok(shim) = self.inner.world.shim(&pod.snapshot()) else { return };
        let within = self.inner.world.host.shim_deadline;
        if let Err(error) = shim.delete(record.id.as_str(), within).await {
            tracing::debug!(container = %record.id, %error, "the task could not be deleted yet");
        }
    }

    /// Stops a container: its stop signal, and when the grace is over SIGKILL. It has ended when this
    /// returns. An unknown container, or one that does not run, is stopped.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let Some(container) = self.find_container(id)? else { return Ok(()) };
        let this = self.clone();
        self.to_the_end(async move { this.stop_one(&container, grace).await }).await
    }

    async fn stop_one(&self, container: &Container, grace: Duration) -> Result<(), Error> {
        // A start that is under way is waited for, so that it cannot come after the stop.
        drop(container.hold().await);
        let record = container.snapshot();
        if !matches!(record.life, Life::Running { .. }) {
            return Ok(());
        }
        if !grace.is_zero() {
            self.signal(&record, record.stop_signal).await?;
            if ended(container, grace).await {
                return Ok(());
            }
        }
        self.signal(&record, SIGKILL).await?;
        match ended(container, DEATH).await {
            true => Ok(()),
            false => Err(Error::Late { doing: "the container, though killed,", within: DEATH }),
        }
    }

    /// A process that has just ended by itself is no error: its end is on its way.
    async fn signal(&self, record: &ContainerRecord, signal: i32) -> Result<(), Error> {
        let pod = self.pod_of(record)?;
        let shim = self.inner.world.shim(&pod.snapshot())?;
        let within = self.inner.world.host.shim_deadline;
        match shim.kill(record.id.as_str(), signal, false, within).await {
            Err(error)
                if !matches!(
                    error.class(),
                    Class::NotFound | Class::FailedPrecondition | Class::Unavailable
                ) =>
            {
                Err(Error::from(error).at("stopping the container"))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container, killing it first if it runs. An unknown container is removed.
    pub async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let Some(container) = self.find_container(id)? else { return Ok(()) };
        let this = self.clone();
        self.to_the_end(async move { this.remove_one(&container).await }).await
    }

    async fn remove_one(&self, container: &Container) -> Result<(), Error> {
        self.stop_one(container, Duration::ZERO).await?;
        let owner = self.pod_of(&container.snapshot())?;
        let pod = owner.snapshot();
        let Some(turn) = container.turn().await else { return Ok(()) };
        let mut work = ContainerWork::new(&self.inner.world, &pod, turn);
        step::unmake(&mut work, None).await?;
        let (id, name) = (work.turn.id.clone(), name_of(&work.turn));
        self.drop_container(&id, &name);
        Ok(())
    }

    /// Ends all containers of a pod at once, those too that were never started.
    pub(crate) async fn stop_containers_of(&self, pod: &PodId) -> Result<(), Error> {
        self.each_of(pod, |this, container| async move {
            this.stop_one(&container, Duration::ZERO).await?;
            let life = container.snapshot().life.clone();
            if life == Life::Created {
                this.release_task(&container.snapshot()).await;
                let error = Error::precondition("the pod was stopped first");
                this.died(&container, not_started(&error)).await;
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn remove_containers_of(&self, pod: &PodId) -> Result<(), Error> {
        self.each_of(pod, |this, container| async move { this.remove_one(&container).await }).await
    }

    /// Does something to all containers of a pod in parallel, and to all of them even if one fails.
    async fn each_of<W, F>(&self, pod: &PodId, work: W) -> Result<(), Error>
    where
        W: Fn(Pods, Container) -> F,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let mut running = tokio::task::JoinSet::new();
        for container in self.containers_of(pod) {
            running.spawn(work(self.clone(), container));
        }
        let results = running.join_all().await;
        results.into_iter().collect()
    }

    pub(crate) fn containers_of(&self, pod: &PodId) -> Vec<Container> {
        let all: BTreeMap<_, _> = self.container_owners();
        all.into_values().filter(|container| container.snapshot().pod == *pod).collect()
    }
}

/// Containers are in their pod's user namespace, and a request that says otherwise means another pod.
fn check_user_namespace(pod: &PodRecord, plan: &ContainerPlan) -> Result<(), Error> {
    let (asked, pods) = (&plan.security.user, &pod.plan.namespaces.user);
    if asked.is_none() || asked == pods {
        return Ok(());
    }
    let field = "config.linux.security_context.namespace_options.userns_options";
    Err(Error::rejected(field, "is not the pod's"))
}

/// Waits until the container is seen to have ended, but no longer than `within`.
async fn ended(container: &Container, within: Duration) -> bool {
    let mut shown = container.watch();
    let over = shown.wait_for(|record| record.life.is_over());
    tokio::time::timeout(within, over).await.is_ok()
}

pub(crate) fn name_of(record: &ContainerRecord) -> (PodId, String, u32) {
    (record.pod.clone(), record.plan.name.clone(), record.plan.attempt)
}

/// 128 is what containerd gives a container that could not be started.
fn not_started(error: &Error) -> Death {
    Death { code: 128, at: ::names::now(), reason: Reason::StartError, message: error.chain() }
}
