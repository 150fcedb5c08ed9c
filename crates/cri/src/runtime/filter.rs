//! Which pods and containers a list is asked for. All parts of a filter must hold; one that says
//! nothing holds for all.

use std::sync::Arc;

use cri_proto::v1;
use names::Labels;
use pods::{ContainerRecord, PodRecord};

use super::RuntimeService;
use crate::show;

impl RuntimeService {
    pub(super) fn wanted_pods(&self, filter: Option<v1::PodSandboxFilter>) -> Vec<Arc<PodRecord>> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|wanted| wanted.state);
        self.pods_like(&filter.id, &filter.label_selector, |pod| {
            state.is_none_or(|state| state == show::pod_state(pod))
        })
    }

    pub(super) fn measured_pods(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Vec<Arc<PodRecord>> {
        let filter = filter.unwrap_or_default();
        self.pods_like(&filter.id, &filter.label_selector, |_| true)
    }

    fn pods_like(
        &self,
        id: &str,
        labels: &Labels,
        also: impl Fn(&PodRecord) -> bool,
    ) -> Vec<Arc<PodRecord>> {
        let mut pods = self.pods.pods();
        pods.retain(|pod| {
            pod.id.as_str().starts_with(id) && has_labels(&pod.plan.labels, labels) && also(pod)
        });
        pods
    }

    pub(super) fn wanted_containers(
        &self,
        filter: Option<v1::ContainerFilter>,
    ) -> Vec<Arc<ContainerRecord>> {
        let filter = filter.unwrap_or_default();
        let state = filter.state.map(|wanted| wanted.state);
        let ids = (&*filter.id, &*filter.pod_sandbox_id);
        self.containers_like(ids, &filter.label_selector, |container| {
            state.is_none_or(|state| state == show::container_state(container))
        })
    }

    pub(super) fn measured_containers(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Vec<Arc<ContainerRecord>> {
        let filter = filter.unwrap_or_default();
        let ids = (&*filter.id, &*filter.pod_sandbox_id);
        self.containers_like(ids, &filter.label_selector, |_| true)
    }

    fn containers_like(
        &self,
        (id, pod): (&str, &str),
        labels: &Labels,
        also: impl Fn(&ContainerRecord) -> bool,
    ) -> Vec<Arc<ContainerRecord>> {
        let mut containers = self.pods.containers();
        containers.retain(|container| {
            container.id.as_str().starts_with(id)
                && container.pod.as_str().starts_with(pod)
                && has_labels(&container.plan.labels, labels)
                && also(container)
        });
        containers
    }
}

/// Whether every label that is asked for is there, and the same.
fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_labels_that_are_asked_for_must_be_there() {
        let has = labels(&[("app", "web"), ("tier", "front")]);
        assert!(has_labels(&has, &labels(&[])));
        assert!(has_labels(&has, &labels(&[("app", "web"), ("tier", "front")])));
        assert!(!has_labels(&has, &labels(&[("app", "web"), ("zone", "a")])));
        assert!(!has_labels(&has, &labels(&[("app", "db")])));
    }
}
