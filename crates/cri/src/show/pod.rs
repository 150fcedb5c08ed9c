//! Pods, as CRI shows them.

use cri_proto::v1;
use pods::{PodRecord, plan::Sharing};

pub(crate) fn state(pod: &PodRecord) -> i32 {
    let state = match pod.is_ready() {
        true => v1::PodSandboxState::SandboxReady,
        false => v1::PodSandboxState::SandboxNotready,
    };
    state.into()
}

fn metadata(pod: &PodRecord) -> v1::PodSandboxMetadata {
    let name = pod.name();
    v1::PodSandboxMetadata {
        name: name.name.clone(),
        uid: name.uid.clone(),
        namespace: name.namespace.clone(),
        attempt: name.attempt,
    }
}

pub(crate) fn pod(pod: &PodRecord) -> v1::PodSandbox {
    v1::PodSandbox {
        id: pod.id.to_string(),
        metadata: Some(metadata(pod)),
        state: state(pod),
        created_at: pod.created_at,
        labels: pod.plan.labels.clone(),
        annotations: pod.plan.annotations.clone(),
        runtime_handler: pod.plan.handler.clone(),
    }
}

pub(crate) fn pod_status(pod: &PodRecord) -> v1::PodSandboxStatus {
    v1::PodSandboxStatus {
        id: pod.id.to_string(),
        metadata: Some(metadata(pod)),
        state: state(pod),
        created_at: pod.created_at,
        network: Some(network(pod)),
        linux: Some(v1::LinuxPodSandboxStatus {
            namespaces: Some(v1::Namespace { options: Some(namespaces(pod)) }),
        }),
        labels: pod.plan.labels.clone(),
        annotations: pod.plan.annotations.clone(),
        runtime_handler: pod.plan.handler.clone(),
    }
}

fn network(pod: &PodRecord) -> v1::PodSandboxNetworkStatus {
    let mut addresses = pod.addresses.iter().map(ToString::to_string);
    v1::PodSandboxNetworkStatus {
        ip: addresses.next().unwrap_or_default(),
        additional_ips: addresses.map(|ip| v1::PodIp { ip }).collect(),
    }
}

fn namespaces(pod: &PodRecord) -> v1::NamespaceOption {
    let modes = &pod.plan.namespaces;
    v1::NamespaceOption {
        network: mode(&modes.network),
        pid: mode(&modes.pid),
        ipc: mode(&modes.ipc),
        ..Default::default()
    }
}

fn mode(sharing: &Sharing) -> i32 {
    let mode = match sharing {
        Sharing::Pod => v1::NamespaceMode::Pod,
        Sharing::Container => v1::NamespaceMode::Container,
        Sharing::Node => v1::NamespaceMode::Node,
        Sharing::Target(_) => v1::NamespaceMode::Target,
    };
    mode.into()
}
