//! The annotations that tell a runtime what a container is to Kubernetes, under the names that
//! containerd gave them and that shims of others look for.

use std::collections::HashMap;

use names::Labels;

use crate::plan::{Plan, Pod};

const PREFIX: &str = "io.kubernetes.cri.";

pub(crate) fn of_container(plan: &Plan) -> HashMap<String, String> {
    let more = [("container-name", plan.name.as_str()), ("image-name", &plan.image)];
    all("container", &plan.pod, &more, &plan.annotations)
}

pub(crate) fn of_sandbox(pod: &Pod, image: &str, others: &Labels) -> HashMap<String, String> {
    all("sandbox", pod, &[("image-name", image)], others)
}

fn all(kind: &str, pod: &Pod, more: &[(&str, &str)], others: &Labels) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = others.clone().into_iter().collect();
    let ours = [
        ("container-type", kind),
        ("sandbox-id", pod.id.as_str()),
        ("sandbox-name", &pod.name),
        ("sandbox-namespace", &pod.namespace),
        ("sandbox-uid", &pod.uid),
    ];
    for (key, value) in ours.iter().chain(more).filter(|(_, value)| !value.is_empty()) {
        all.insert(format!("{PREFIX}{key}"), (*value).to_owned());
    }
    all
}
