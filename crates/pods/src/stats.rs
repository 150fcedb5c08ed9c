//! What containers use, read when it is asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use names::{ContainerId, Nanos};
use shim_api::Stats;

use crate::{
    Error, Pods,
    container::{ContainerRecord, Life},
    host::now,
    tasks::must_run,
};

/// How long a shim may take to read a few files.
const PATIENCE: Duration = Duration::from_secs(10);

/// A limit as large as this is none: cgroup v1 says "no limit" by its largest number of pages.
const NO_LIMIT: u64 = 1 << 62;

/// What a container uses.
#[derive(Clone, Debug)]
pub struct ContainerStats {
    pub container: Arc<ContainerRecord>,
    pub at: Nanos,
    /// Processor time since the container began, in ns.
    pub cpu_ns: u64,
    /// Processor time a second, in ns, since stats were last asked for; none at the first time.
    pub nano_cores: Option<u64>,
    pub memory: Memory,
    pub layer: Layer,
}

/// Bytes, but for the faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    pub working_set: u64,
    /// What is left of the limit; none without a limit.
    pub available: Option<u64>,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap: u64,
}

/// The container's writable layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    pub mountpoint: String,
    pub bytes: u64,
    pub inodes: u64,
}

/// The last sample of each container's processor time, for its rate.
#[derive(Default)]
pub(crate) struct Samples {
    last: Mutex<HashMap<ContainerId, (Nanos, u64)>>,
}

impl Samples {
    /// The rate since the last sample, which this one replaces.
    fn rate(&self, id: &ContainerId, at: Nanos, cpu: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, before) = last.insert(id.clone(), (at, cpu))?;
        let elapsed = u128::try_from(at.checked_sub(then)?).ok().filter(|elapsed| *elapsed > 0)?;
        let used = u128::from(cpu.saturating_sub(before));
        u64::try_from(used * 1_000_000_000 / elapsed).ok()
    }

    pub(crate) fn forget(&self, id: &ContainerId) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Pods {
    /// What one running container uses.
    pub async fn stats(&self, id: &str) -> Result<ContainerStats, Error> {
        let record = self.known_container(id)?.snapshot();
        must_run(&record)?;
        self.read_stats(record).await
    }

    /// What those of the containers use that run, and go on running while they are asked.
    pub async fn stats_of(&self, containers: &[Arc<ContainerRecord>]) -> Vec<ContainerStats> {
        let running = containers.iter().filter(|it| matches!(it.life, Life::Running { .. }));
        let mut reading = tokio::task::JoinSet::new();
        for container in running.cloned() {
            let this = self.clone();
            reading.spawn(async move { this.read_stats(container).await });
        }
        let mut stats: Vec<_> = reading.join_all().await.into_iter().flatten().collect();
        stats.sort_by_key(|stats| std::cmp::Reverse(stats.container.created_at));
        stats
    }

    async fn read_stats(&self, container: Arc<ContainerRecord>) -> Result<ContainerStats, Error> {
        let pod = self.pod_of(&container)?.snapshot();
        let stats = self.inner.world.shim(&pod)?.stats(container.id.as_str(), PATIENCE).await?;
        let at = now();
        let (cpu_ns, memory) = match &stats {
            Stats::V1(metrics) => v1(metrics),
            Stats::V2(metrics) => v2(metrics),
        };
        let images = &self.inner.world.host.images;
        let used = images.container_usage(&container.id).await?;
        Ok(ContainerStats {
            nano_cores: self.inner.samples.rate(&container.id, at, cpu_ns),
            at,
            cpu_ns,
            memory,
            layer: Layer {
                mountpoint: images.root().display().to_string(),
                bytes: used.bytes,
                inodes: used.inodes,
            },
            container,
        })
    }
}

fn available(limit: u64, working_set: u64) -> Option<u64> {
    (limit > 0 && limit < NO_LIMIT).then(|| limit.saturating_sub(working_set))
}

fn v1(metrics: &shim_api::cgroups_v1::Metrics) -> (u64, Memory) {
    let cpu = metrics.cpu.usage.total;
    let stat = &metrics.memory;
    let working_set = stat.usage.usage.saturating_sub(stat.total_inactive_file);
    let memory = Memory {
        usage: stat.usage.usage,
        working_set,
        available: available(stat.usage.limit, working_set),
        rss: stat.total_rss,
        page_faults: stat.total_pg_fault,
        major_page_faults: stat.total_pg_maj_fault,
        swap: stat.swap.usage.saturating_sub(stat.usage.usage),
    };
    (cpu, memory)
}

fn v2(metrics: &shim_api::cgroups_v2::Metrics) -> (u64, Memory) {
    let stat = &metrics.memory;
    let working_set = stat.usage.saturating_sub(stat.inactive_file);
    let memory = Memory {
        usage: stat.usage,
        working_set,
        available: available(stat.usage_limit, working_set),
        rss: stat.anon,
        page_faults: stat.pgfault,
        major_page_faults: stat.pgmajfault,
        swap: stat.swap_usage,
    };
    (metrics.cpu.usage_usec.saturating_mul(1000), memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_samples_and_time_between_them() {
        let samples = Samples::default();
        let id = ContainerId::from_bytes([1; 32]);
        assert_eq!(samples.rate(&id, 1_000_000_000, 5), None);
        assert_eq!(samples.rate(&id, 2_000_000_000, 500_000_005), Some(500_000_000));
        assert_eq!(samples.rate(&id, 2_000_000_000, 500_000_005), None);
        assert_eq!(samples.rate(&id, 1_000_000_000, 500_000_005), None);
        samples.forget(&id);
        assert_eq!(samples.rate(&id, 9_000_000_000, 6), None);
    }

    #[test]
    fn a_limit_beyond_any_memory_is_none() {
        assert_eq!(available(0, 5), None);
        assert_eq!(available(!4095, 5), None);
        assert_eq!(available(10, 4), Some(6));
        assert_eq!(available(10, 40), Some(0));
    }
}
