//! All that can be told of pods and their containers, for the metrics of the node: what stats tell,
//! and what must be looked up process by process.

use std::{collections::BTreeMap, sync::Arc};

use sys::{cgroup::Cgroup, procfs};
use tokio::task::JoinSet;

use crate::{
    Pods,
    container::{ContainerRecord, Life},
    disk::{self, Disk},
    pod::PodRecord,
    stats::{ContainerStats, PodStats},
};

/// A pod, measured. Rates are not told here.
#[derive(Clone, Debug)]
pub struct PodMetrics {
    /// Its containers are not in here, but beside.
    pub pod: PodStats,
    pub containers: Vec<ContainerMetrics>,
    /// What people call the block devices that are named by number in the usage of both.
    pub devices: BTreeMap<(u32, u32), String>,
}

/// A running container, measured.
#[derive(Clone, Debug)]
pub struct ContainerMetrics {
    pub stats: ContainerStats,
    /// None if its processes are in a place that cannot be seen from here, as in a virtual machine.
    pub processes: Option<Processes>,
    /// The disk with its writable layer.
    pub disk: Option<Disk>,
}

/// The processes of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    pub count: u64,
    pub descriptors: u64,
    pub sockets: u64,
    /// How many files its first process may have open; none if there is no limit.
    pub open_files_limit: Option<u64>,
}

impl Pods {
    /// Measures those of the pods that are ready, and stay so while they are looked at.
    pub async fn metrics_of(&self, pods: &[Arc<PodRecord>]) -> Vec<PodMetrics> {
        let stats = self.read_pods(pods).await;
        let root = self.inner.world.host.images.root().to_owned();
        let disk = tokio::task::spawn_blocking(move || disk::of(&root).ok()).await.ok().flatten();
        let mut measuring = JoinSet::new();
        for pod in stats {
            let groups = self.groups(&pod.containers);
            let disk = disk.clone();
            measuring.spawn_blocking(move || measure(pod, groups, disk.as_ref()));
        }
        let mut metrics = measuring.join_all().await;
        metrics.sort_by_key(|metrics| std::cmp::Reverse(metrics.pod.pod.created_at));
        metrics
    }

    fn groups(&self, containers: &[ContainerStats]) -> Vec<Option<Cgroup>> {
        let group = |stats: &ContainerStats| self.inner.world.cgroup(&stats.container.cgroup).ok();
        containers.iter().map(group).collect()
    }
}

/// Blocks.
fn measure(mut pod: PodStats, groups: Vec<Option<Cgroup>>, disk: Option<&Disk>) -> PodMetrics {
    let all = std::mem::take(&mut pod.containers).into_iter().zip(groups);
    let containers: Vec<_> = all
        .map(|(stats, group)| ContainerMetrics {
            processes: group.and_then(|group| processes(&stats.container, &group)),
            disk: disk.cloned(),
            stats,
        })
        .collect();
    let devices = containers.iter().flat_map(|container| &container.stats.usage.io);
    let devices = devices.chain(&pod.usage.io).map(|io| (io.major, io.minor));
    let devices = devices.map(|(major, minor)| ((major, minor), disk::name(major, minor)));
    PodMetrics { devices: devices.collect(), containers, pod }
}

/// The record's pid may be one of another machine; whoever is in the cgroup here is not.
fn processes(container: &ContainerRecord, group: &Cgroup) -> Option<Processes> {
    let pids = group.members().ok().filter(|pids| !pids.is_empty())?;
    let mut processes = Processes { count: pids.len() as u64, ..Processes::default() };
    for pid in &pids {
        let open = procfs::descriptors(*pid);
        processes.descriptors += open.all;
        processes.sockets += open.sockets;
    }
    if let Life::Running { pid, .. } = container.life
        && pids.contains(&pid)
    {
        processes.open_files_limit = procfs::open_files_limit(pid);
    }
    Some(processes)
}
