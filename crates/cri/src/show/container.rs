//! Containers, as CRI shows them.

use cri_proto::v1;
use pods::{
    ContainerRecord, Life,
    plan::{Mount, Propagation, Resources, shown_image},
};

pub(crate) fn state(container: &ContainerRecord) -> i32 {
    let state = match container.life {
        Life::Created => v1::ContainerState::ContainerCreated,
        Life::Running { .. } => v1::ContainerState::ContainerRunning,
        Life::Exited { .. } => v1::ContainerState::ContainerExited,
    };
    state.into()
}

fn metadata(container: &ContainerRecord) -> Option<v1::ContainerMetadata> {
    let plan = &container.plan;
    Some(v1::ContainerMetadata { name: plan.name.clone(), attempt: plan.attempt })
}

fn image(container: &ContainerRecord) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec {
        image: shown_image(&container.plan).to_owned(),
        user_specified_image: container.plan.user_image.clone(),
        ..Default::default()
    })
}

pub(crate) fn container(container: &ContainerRecord) -> v1::Container {
    v1::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.pod.to_string(),
        metadata: metadata(container),
        image: image(container),
        image_ref: container.image_ref.clone(),
        state: state(container),
        created_at: container.created_at,
        labels: container.plan.labels.clone(),
        annotations: container.plan.annotations.clone(),
        image_id: container.image.to_string(),
    }
}

pub(crate) fn container_status(container: &ContainerRecord) -> v1::ContainerStatus {
    let mut status = v1::ContainerStatus {
        id: container.id.to_string(),
        metadata: metadata(container),
        state: state(container),
        created_at: container.created_at,
        image: image(container),
        image_ref: container.image_ref.clone(),
        labels: container.plan.labels.clone(),
        annotations: container.plan.annotations.clone(),
        mounts: mounts(container),
        log_path: container.log.as_ref().map_or_else(String::new, |p| p.display().to_string()),
        resources: Some(v1::ContainerResources {
            linux: Some(resources(&container.resources)),
            ..Default::default()
        }),
        image_id: container.image.to_string(),
        user: container.user.as_ref().map(user),
        stop_signal: container.plan.stop_signal,
        ..Default::default()
    };
    match &container.life {
        Life::Created => {}
        Life::Running { started, .. } => status.started_at = *started,
        Life::Exited { started, death } => {
            status.started_at = started.unwrap_or_default();
            status.finished_at = death.at;
            status.exit_code = death.code;
            death.reason.text().clone_into(&mut status.reason);
            status.message.clone_from(&death.message);
        }
    }
    status
}

fn mounts(container: &ContainerRecord) -> Vec<v1::Mount> {
    let mut mounts: Vec<_> = container.plan.mounts.iter().map(mount).collect();
    for volume in &container.volumes {
        let image = mounts.get_mut(volume.mount).and_then(|mount| mount.image.as_mut());
        if let Some(image) = image {
            image.image_ref = volume.image.to_string();
        }
    }
    mounts
}

fn mount(mount: &Mount) -> v1::Mount {
    let image = mount.image.as_ref();
    let propagation = match mount.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: mount.container_path.display().to_string(),
        host_path: mount.host_path.display().to_string(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        recursive_read_only: mount.recursive_read_only,
        image: image.map(|image| v1::ImageSpec {
            image: image.image.clone(),
            user_specified_image: image.user_image.clone(),
            ..Default::default()
        }),
        image_sub_path: image.map_or_else(String::new, |it| it.sub_path.display().to_string()),
        ..Default::default()
    }
}

fn resources(limits: &Resources) -> v1::LinuxContainerResources {
    let hugepage = |(size, limit): &(String, u64)| v1::HugepageLimit {
        page_size: size.clone(),
        limit: *limit,
    };
    v1::LinuxContainerResources {
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory,
        oom_score_adj: limits.oom_score_adj,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        hugepage_limits: limits.hugepages.iter().map(hugepage).collect(),
        unified: limits.unified.clone(),
        memory_swap_limit_in_bytes: limits.memory_swap,
    }
}

fn user(user: &pods::User) -> v1::ContainerUser {
    v1::ContainerUser {
        linux: Some(v1::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
        }),
    }
}
