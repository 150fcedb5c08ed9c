//! What containers and pods use, read when it is asked for: nothing here runs by itself.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use names::{Class, ContainerId, Nanos, PodId};
use sys::{cgroup::Stats as Usage, netdev::Interface};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    Error, Pods,
    container::{ContainerRecord, Life},
    error::Context,
    pod::PodRecord,
    tasks::must_run,
    traffic, usage,
};

/// How long a shim may take to read a few files.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many pods are read at once: each takes a thread or two for as long as it lasts.
const AT_ONCE: usize = 16;

/// What a container uses.
#[derive(Clone, Debug)]
pub struct ContainerStats {
    pub container: Arc<ContainerRecord>,
    pub at: Nanos,
    /// Processor time a second, in ns, since stats were last asked for; none at the first time.
    pub nano_cores: Option<u64>,
    pub usage: Usage,
    pub layer: Layer,
}

/// The container's writable layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    pub mountpoint: String,
    pub bytes: u64,
    pub inodes: u64,
}

/// What a pod uses, in whole.
#[derive(Clone, Debug)]
pub struct PodStats {
    pub pod: Arc<PodRecord>,
    pub at: Nanos,
    pub nano_cores: Option<u64>,
    /// Of its cgroup: that of its containers, of its sandbox, and of what else is put there.
    pub usage: Usage,
    pub processes: u64,
    /// None if the pod has no network of its own, or does not tell.
    pub traffic: Option<Vec<Interface>>,
    /// Those that run.
    pub containers: Vec<ContainerStats>,
}

/// The last sample of each thing's processor time, for its rate.
pub(crate) struct Samples<K> {
    last: Mutex<HashMap<K, (Nanos, u64)>>,
}

impl<K> Default for Samples<K> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> Samples<K> {
    /// The rate since the last sample, which this one replaces.
    fn rate(&self, id: &K, at: Nanos, cpu: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, before) = last.insert(id.clone(), (at, cpu))?;
        let elapsed = u128::try_from(at.checked_sub(then)?).ok().filter(|elapsed| *elapsed > 0)?;
        let used = u128::from(cpu.saturating_sub(before));
        u64::try_from(used * 1_000_000_000 / elapsed).ok()
    }

    pub(crate) fn forget(&self, id: &K) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// The last samples of all containers and pods.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) containers: Samples<ContainerId>,
    pub(crate) pods: Samples<PodId>,
}

impl Pods {
    /// What one running container uses.
    pub async fn stats(&self, id: &str) -> Result<ContainerStats, Error> {
        let record = self.known_container(id)?.snapshot();
        must_run(&record)?;
        Ok(self.with_rate(self.read_container(record).await?))
    }

    /// What those of the containers use that run, and go on running while they are asked.
    pub async fn stats_of(&self, containers: &[Arc<ContainerRecord>]) -> Vec<ContainerStats> {
        let stats = self.read_containers(containers).await;
        stats.into_iter().map(|stats| self.with_rate(stats)).collect()
    }

    /// What a ready pod uses.
    ///
    /// # Errors
    /// Of the class Unavailable if it is not ready.
    pub async fn pod_stats(&self, id: &str) -> Result<PodStats, Error> {
        let pod = self.pod(id)?;
        if !pod.is_ready() {
            let why = format!("pod {} is not ready, and has no stats", pod.id.short());
            return Err(Error::Refused { class: Class::Unavailable, why });
        }
        let stats = self.read_pod(pod).await?;
        Ok(self.with_rates(stats))
    }

    /// What those of the pods use that are ready, and stay so while they are asked.
    pub async fn pod_stats_of(&self, pods: &[Arc<PodRecord>]) -> Vec<PodStats> {
        let stats = self.read_pods(pods).await;
        stats.into_iter().map(|stats| self.with_rates(stats)).collect()
    }

    fn with_rate(&self, mut stats: ContainerStats) -> ContainerStats {
        let (id, cpu) = (&stats.container.id, stats.usage.cpu_usage_ns);
        stats.nano_cores = self.inner.rates.containers.rate(id, stats.at, cpu);
        stats
    }

    fn with_rates(&self, mut stats: PodStats) -> PodStats {
        let (id, cpu) = (&stats.pod.id, stats.usage.cpu_usage_ns);
        stats.nano_cores = self.inner.rates.pods.rate(id, stats.at, cpu);
        stats.containers = stats.containers.into_iter().map(|it| self.with_rate(it)).collect();
        stats
    }

    /// The newest first, as lists have them.
    async fn read_containers(&self, containers: &[Arc<ContainerRecord>]) -> Vec<ContainerStats> {
        let running = containers.iter().filter(|it| matches!(it.life, Life::Running { .. }));
        let mut reading = JoinSet::new();
        for container in running.cloned() {
            let this = self.clone();
            reading.spawn(async move { this.read_container(container).await });
        }
        let mut stats: Vec<_> = reading.join_all().await.into_iter().flatten().collect();
        stats.sort_by_key(|stats| std::cmp::Reverse(stats.container.created_at));
        stats
    }

    async fn read_container(
        &self,
        container: Arc<ContainerRecord>,
    ) -> Result<ContainerStats, Error> {
        let pod = self.pod_of(&container)?.snapshot();
        let stats = self.inner.world.shim(&pod)?.stats(container.id.as_str(), PATIENCE).await?;
        let at = ::names::now();
        let images = &self.inner.world.host.images;
        let used = images.container_usage(&container.id).await?;
        Ok(ContainerStats {
            nano_cores: None,
            at,
            usage: usage::told(&stats),
            layer: Layer {
                mountpoint: images.root().display().to_string(),
                bytes: used.bytes,
                inodes: used.inodes,
            },
            container,
        })
    }

    /// The newest first. A pod that is not ready any more, or cannot be read, is left out.
    pub(crate) async fn read_pods(&self, pods: &[Arc<PodRecord>]) -> Vec<PodStats> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut reading = JoinSet::new();
        for pod in pods.iter().filter(|pod| pod.is_ready()).cloned() {
            let (this, turns) = (self.clone(), Arc::clone(&turns));
            reading.spawn(async move {
                let _turn = turns.acquire().await;
                let read = this.read_pod(pod).await;
                read.inspect_err(|error| tracing::debug!(error = error.chain(), "left out"))
            });
        }
        let mut stats: Vec<_> = reading.join_all().await.into_iter().flatten().collect();
        stats.sort_by_key(|stats| std::cmp::Reverse(stats.pod.created_at));
        stats
    }

    async fn read_pod(&self, pod: Arc<PodRecord>) -> Result<PodStats, Error> {
        let containers: Vec<_> =
            self.containers_of(&pod.id).iter().map(|owner| owner.snapshot()).collect();
        let (used, traffic, containers) = tokio::join!(
            self.read_cgroup(&pod),
            traffic::of(&pod),
            self.read_containers(&containers)
        );
        let (usage, processes) = used?;
        let traffic = traffic.unwrap_or_else(|error| {
            tracing::warn!(pod = %pod.id, error = error.chain(), "its traffic cannot be told");
            None
        });
        Ok(PodStats {
            at: ::names::now(),
            nano_cores: None,
            usage,
            processes,
            traffic,
            containers,
            pod,
        })
    }

    /// What the pod's cgroup uses, and how many processes are in it. In a cgroup that was named and
    /// that nobody has made yet, nothing has run.
    async fn read_cgroup(&self, pod: &PodRecord) -> Result<(Usage, u64), Error> {
        let (world, path) = (&self.inner.world, pod.cgroup.clone());
        let measured = world.makes_cgroup_of(pod).measured(&world.group(pod))?;
        let read = tokio::task::spawn_blocking(move || {
            if !measured.whole.exists() {
                return Ok(Default::default());
            }
            Ok((measured.whole.stats()?, measured.processes()?))
        });
        let read: Result<_, std::io::Error> =
            read.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        read.on("reading the cgroup", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_samples_and_time_between_them() {
        let samples = Samples::default();
        assert_eq!(samples.rate(&"a", 1_000_000_000, 5), None);
        assert_eq!(samples.rate(&"a", 2_000_000_000, 500_000_005), Some(500_000_000));
        assert_eq!(samples.rate(&"a", 2_000_000_000, 500_000_005), None);
        assert_eq!(samples.rate(&"a", 1_000_000_000, 500_000_005), None);
        samples.forget(&"a");
        assert_eq!(samples.rate(&"a", 9_000_000_000, 6), None);
    }
}
