//! What has happened, as CRI tells it.

use cri_proto::v1;
use pods::events::{Event, Kind};

use super::{container_status, pod_status};

pub(crate) fn event(event: &Event) -> v1::ContainerEventResponse {
    let kind = match event.kind {
        Kind::Created => v1::ContainerEventType::ContainerCreatedEvent,
        Kind::Started => v1::ContainerEventType::ContainerStartedEvent,
        Kind::Stopped => v1::ContainerEventType::ContainerStoppedEvent,
        Kind::Deleted => v1::ContainerEventType::ContainerDeletedEvent,
    };
    v1::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind.into(),
        created_at: event.at,
        pod_sandbox_status: event.pod.as_deref().map(pod_status),
        containers_statuses: event.containers.iter().map(|it| container_status(it)).collect(),
    }
}
