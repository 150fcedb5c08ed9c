//! Pods and containers: what they own, the steps that make them, their states, and recovery.
//!
//! [`Pods`] is all that is known of them. What it is asked runs to its end on a task of its own,
//! whoever is still listening: a client that goes away leaves nothing half made. Lists and status
//! read snapshots and wait for nobody. There is nothing of the wire format in here.

pub mod apparmor;
mod cgroups;
mod container;
mod container_steps;
mod containers;
mod dial;
mod disk;
mod error;
pub mod events;
mod faults;
mod features;
mod files;
mod host;
mod intent;
mod limits;
mod metrics;
mod names;
mod network;
mod node;
mod owner;
mod owners;
pub mod plan;
mod pod;
mod pod_steps;
mod quarantine;
mod recover;
mod resize;
mod run;
mod signals;
mod spare;
mod spec;
mod stats;
mod step;
mod tasks;
mod traffic;
mod usage;
mod volumes;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use ::names::{ContainerId, PodId};
use tokio_util::task::TaskTracker;

pub use cgroups::{Cgroups, Driver, Settings as CgroupSettings};
pub use container::{ContainerRecord, Death, Life, Reason, User, Volume};
pub use disk::Disk;
pub use error::Error;
pub use features::{Abilities, Features};
pub use host::{Handler, Host};
pub use metrics::{ContainerMetrics, PodMetrics, Processes};
pub use node::NotReady;
pub use pod::{Network, PodRecord};
pub use resize::Resize;
pub use stats::{ContainerStats, Layer, PodStats};
pub use store::Quarantined;

use host::World;
use owner::{Hears, Owner};

/// All pods and containers of this daemon. Clones are the same.
#[derive(Clone)]
pub struct Pods {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    pods: RwLock<BTreeMap<PodId, Arc<Owner<PodRecord>>>>,
    containers: RwLock<BTreeMap<ContainerId, Arc<Owner<ContainerRecord>>>>,
    rates: stats::Rates,
    events: events::Events,
    tasks: TaskTracker,
}

impl Pods {
    /// Nothing is known yet; [`Pods::recover`] reads the records.
    pub fn new(host: Host) -> Self {
        let inner = Inner {
            world: World::new(host),
            pods: RwLock::default(),
            containers: RwLock::default(),
            rates: stats::Rates::default(),
            events: events::Events::default(),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs to its end whoever is still listening: tonic drops the future of a call whose client has
    /// gone, or whose deadline has passed.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let task = self.inner.tasks.spawn(work);
        task.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    /// The pod with this id, or the only one whose id begins so.
    pub fn pod(&self, id: &str) -> Result<Arc<PodRecord>, Error> {
        let found = self.find_pod(id)?.map(|pod| pod.snapshot());
        found.filter(|pod| pod.is_shown()).ok_or_else(|| Error::NoSuchPod(id.to_owned()))
    }

    /// All pods, the newest first.
    pub fn pods(&self) -> Vec<Arc<PodRecord>> {
        let mut pods: Vec<_> = read(&self.inner.pods).values().map(|pod| pod.snapshot()).collect();
        pods.retain(|pod| pod.is_shown());
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        pods
    }

    /// The container with this id, or the only one whose id begins so.
    pub fn container(&self, id: &str) -> Result<Arc<ContainerRecord>, Error> {
        let found = self.find_container(id)?.map(|container| container.snapshot());
        let shown = found.filter(|container| container.is_shown());
        shown.ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
    }

    /// All containers, the newest first.
    pub fn containers(&self) -> Vec<Arc<ContainerRecord>> {
        let mut containers: Vec<_> =
            read(&self.inner.containers).values().map(|container| container.snapshot()).collect();
        containers.retain(|container| container.is_shown());
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        containers
    }

    fn own<R: Clone>(&self, record: R) -> Arc<Owner<R>>
    where
        Inner: Hears<R>,
    {
        let ear: std::sync::Weak<Inner> = Arc::downgrade(&self.inner);
        Owner::new(record, ear)
    }

    fn find_pod(&self, id: &str) -> Result<Option<Arc<Owner<PodRecord>>>, Error> {
        only_one("pod sandbox", id, &read(&self.inner.pods))
    }

    fn find_container(&self, id: &str) -> Result<Option<Arc<Owner<ContainerRecord>>>, Error> {
        only_one("container", id, &read(&self.inner.containers))
    }

    fn known_container(&self, id: &str) -> Result<Arc<Owner<ContainerRecord>>, Error> {
        self.find_container(id)?.ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
    }

    fn pod_of(&self, container: &ContainerRecord) -> Result<Arc<Owner<PodRecord>>, Error> {
        let pod = self.pod_owner(&container.pod);
        pod.ok_or_else(|| Error::NoSuchPod(container.pod.to_string()))
    }

    fn pod_owner(&self, id: &PodId) -> Option<Arc<Owner<PodRecord>>> {
        read(&self.inner.pods).get(id).cloned()
    }

    fn container_owner(&self, id: &ContainerId) -> Option<Arc<Owner<ContainerRecord>>> {
        read(&self.inner.containers).get(id).cloned()
    }

    fn container_owners(&self) -> BTreeMap<ContainerId, Arc<Owner<ContainerRecord>>> {
        read(&self.inner.containers).clone()
    }

    fn knows_pod(&self, id: &PodId) -> bool {
        read(&self.inner.pods).contains_key(id)
    }

    fn knows_container(&self, id: &ContainerId) -> bool {
        read(&self.inner.containers).contains_key(id)
    }

    fn add_pod(&self, id: &PodId, pod: &Arc<Owner<PodRecord>>) {
        write(&self.inner.pods).insert(id.clone(), Arc::clone(pod));
    }

    fn drop_pod(&self, id: &PodId) {
        write(&self.inner.pods).remove(id);
        self.inner.rates.pods.forget(id);
    }

    fn add_container(&self, id: &ContainerId, container: &Arc<Owner<ContainerRecord>>) {
        write(&self.inner.containers).insert(id.clone(), Arc::clone(container));
    }

    fn drop_container(&self, id: &ContainerId, name: &(PodId, String, u32)) {
        write(&self.inner.containers).remove(id);
        self.inner.rates.containers.forget(id);
        self.inner.world.container_names.release(name, id);
    }

    /// Waits until no operation is under way; new ones may still be begun by those that watch.
    pub async fn drained(&self, within: std::time::Duration) -> bool {
        self.inner.tasks.close();
        tokio::time::timeout(within, self.inner.tasks.wait()).await.is_ok()
    }
}

/// What owns the mount of a pod's sandbox image, in the eyes of the image store.
pub(crate) fn lease(pod: &PodId) -> ContainerId {
    pod.as_str().parse().expect("ids of pods and of containers are of one form")
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// The value of the key `id`, or of the only key that begins with it.
fn only_one<K, V>(
    kind: &'static str,
    id: &str,
    all: &BTreeMap<K, Arc<V>>,
) -> Result<Option<Arc<V>>, Error>
where
    K: AsRef<str> + Ord,
{
    if id.is_empty() {
        return Err(Error::rejected(kind, "its id is missing"));
    }
    let mut found = all.iter().filter(|(key, _)| key.as_ref().starts_with(id));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(Error::Ambiguous { kind, text: id.to_owned() }),
        (one, _) => Ok(one.map(|(_, value)| Arc::clone(value))),
    }
}

/// All of a pod's record, as JSON, for people.
pub fn verbose_pod(pod: &PodRecord) -> String {
    serde_json::to_string(pod).unwrap_or_default()
}

/// All of a container's record, as JSON, for people; `pid` first, where tools look for it.
pub fn verbose_container(container: &ContainerRecord) -> String {
    let mut text = serde_json::to_value(container).unwrap_or_default();
    if let (Life::Running { pid, .. }, Some(object)) = (&container.life, text.as_object_mut()) {
        object.insert("pid".to_owned(), (*pid).into());
    }
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_shortened_as_long_as_it_means_one_thing() {
        let all: BTreeMap<_, _> =
            [("abc", Arc::new(1)), ("abd", Arc::new(2)), ("x", Arc::new(3))].into();
        assert_eq!(only_one("pod", "abc", &all).unwrap().as_deref(), Some(&1));
        assert_eq!(only_one("pod", "x", &all).unwrap().as_deref(), Some(&3));
        assert_eq!(only_one("pod", "y", &all).unwrap(), None);
        assert!(matches!(only_one("pod", "ab", &all), Err(Error::Ambiguous { .. })));
        assert!(matches!(only_one("pod", "", &all), Err(Error::Rejected { .. })));
    }
}
