//! CRI messages as JSON, with the names that crictl gives their fields, so that what is written for
//! the one works with the other. Times are RFC 3339. What is empty is left out.

use std::collections::BTreeMap;

use cri_proto::v1;
use serde_json::{Map, Value, json};

use crate::words;

/// Whether there is nothing to tell.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// An object without its empty fields.
fn object(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| !is_empty(value)).collect())
        }
        other => other,
    }
}

fn list<T>(items: &[T], show: impl Fn(&T) -> Value) -> Value {
    items.iter().map(show).collect()
}

pub fn pod(pod: &v1::PodSandbox) -> Value {
    object(json!({
        "id": pod.id,
        "metadata": pod.metadata.as_ref().map(pod_name),
        "state": state(v1::PodSandboxState::try_from(pod.state).map(|s| s.as_str_name())),
        "createdAt": words::moment(pod.created_at),
        "runtimeHandler": pod.runtime_handler,
        "labels": pod.labels,
        "annotations": pod.annotations,
    }))
}

pub fn pod_status(pod: &v1::PodSandboxStatus) -> Value {
    object(json!({
        "id": pod.id,
        "metadata": pod.metadata.as_ref().map(pod_name),
        "state": state(v1::PodSandboxState::try_from(pod.state).map(|s| s.as_str_name())),
        "createdAt": words::moment(pod.created_at),
        "network": pod.network.as_ref().map(network),
        "linux": pod.linux.as_ref().map(namespaces),
        "runtimeHandler": pod.runtime_handler,
        "labels": pod.labels,
        "annotations": pod.annotations,
    }))
}

fn pod_name(name: &v1::PodSandboxMetadata) -> Value {
    json!({
        "name": name.name,
        "namespace": name.namespace,
        "uid": name.uid,
        "attempt": name.attempt,
    })
}

fn network(network: &v1::PodSandboxNetworkStatus) -> Value {
    let more = list(&network.additional_ips, |address| json!({ "ip": address.ip }));
    object(json!({ "ip": network.ip, "additionalIps": more }))
}

fn namespaces(linux: &v1::LinuxPodSandboxStatus) -> Value {
    let options = linux.namespaces.as_ref().and_then(|n| n.options.as_ref());
    let mode = |mode| state(v1::NamespaceMode::try_from(mode).map(|m| m.as_str_name()));
    let options = options
        .map(|o| json!({ "network": mode(o.network), "pid": mode(o.pid), "ipc": mode(o.ipc) }));
    json!({ "namespaces": { "options": options } })
}

pub fn container(container: &v1::Container) -> Value {
    object(json!({
        "id": container.id,
        "podSandboxId": container.pod_sandbox_id,
        "metadata": container.metadata.as_ref().map(container_name),
        "image": container.image.as_ref().map(image_spec),
        "imageRef": container.image_ref,
        "imageId": container.image_id,
        "state": state(v1::ContainerState::try_from(container.state).map(|s| s.as_str_name())),
        "createdAt": words::moment(container.created_at),
        "labels": container.labels,
        "annotations": container.annotations,
    }))
}

pub fn container_status(container: &v1::ContainerStatus) -> Value {
    object(json!({
        "id": container.id,
        "metadata": container.metadata.as_ref().map(container_name),
        "state": state(v1::ContainerState::try_from(container.state).map(|s| s.as_str_name())),
        "createdAt": words::moment(container.created_at),
        "startedAt": words::moment(container.started_at),
        "finishedAt": words::moment(container.finished_at),
        "exitCode": container.exit_code,
        "reason": container.reason,
        "message": container.message,
        "image": container.image.as_ref().map(image_spec),
        "imageRef": container.image_ref,
        "imageId": container.image_id,
        "logPath": container.log_path,
        "mounts": list(&container.mounts, mount),
        "resources": container.resources.as_ref().and_then(|r| r.linux.as_ref()).map(resources),
        "user": container.user.as_ref().and_then(|u| u.linux.as_ref()).map(user),
        "stopSignal": signal(container.stop_signal),
        "labels": container.labels,
        "annotations": container.annotations,
    }))
}

fn container_name(name: &v1::ContainerMetadata) -> Value {
    json!({ "name": name.name, "attempt": name.attempt })
}

fn image_spec(image: &v1::ImageSpec) -> Value {
    object(json!({
        "image": image.image,
        "userSpecifiedImage": image.user_specified_image,
        "runtimeHandler": image.runtime_handler,
        "imageRef": image.image_ref,
        "annotations": image.annotations,
    }))
}

fn mount(mount: &v1::Mount) -> Value {
    let propagation = v1::MountPropagation::try_from(mount.propagation);
    object(json!({
        "containerPath": mount.container_path,
        "hostPath": mount.host_path,
        "readonly": mount.readonly,
        "recursiveReadOnly": mount.recursive_read_only,
        "propagation": state(propagation.map(|p| p.as_str_name())),
        "image": mount.image.as_ref().map(image_spec),
        "imageSubPath": mount.image_sub_path,
    }))
}

fn resources(limits: &v1::LinuxContainerResources) -> Value {
    let pages = list(
        &limits.hugepage_limits,
        |page| json!({ "pageSize": page.page_size, "limit": page.limit }),
    );
    json!({ "linux": object(json!({
        "cpuPeriod": limits.cpu_period,
        "cpuQuota": limits.cpu_quota,
        "cpuShares": limits.cpu_shares,
        "memoryLimitInBytes": limits.memory_limit_in_bytes,
        "memorySwapLimitInBytes": limits.memory_swap_limit_in_bytes,
        "oomScoreAdj": limits.oom_score_adj,
        "cpusetCpus": limits.cpuset_cpus,
        "cpusetMems": limits.cpuset_mems,
        "hugepageLimits": pages,
        "unified": limits.unified,
    })) })
}

fn user(user: &v1::LinuxContainerUser) -> Value {
    json!({ "linux": {
        "uid": user.uid,
        "gid": user.gid,
        "supplementalGroups": user.supplemental_groups,
    } })
}

/// The name of a signal as people write it: SIGTERM.
fn signal(signal: i32) -> Option<&'static str> {
    let signal = v1::Signal::try_from(signal).ok()?;
    signal.as_str_name().strip_prefix("SIGNAL_").filter(|_| signal != v1::Signal::RuntimeDefault)
}

pub fn image(image: &v1::Image) -> Value {
    object(json!({
        "id": image.id,
        "repoTags": image.repo_tags,
        "repoDigests": image.repo_digests,
        "size": image.size.to_string(),
        "uid": image.uid.as_ref().map(|uid| json!({ "value": uid.value.to_string() })),
        "username": image.username,
        "pinned": image.pinned,
    }))
}

pub fn runtime_status(status: &v1::StatusResponse) -> Value {
    let conditions = status.status.as_ref().map(|s| list(&s.conditions, condition));
    object(json!({
        "status": { "conditions": conditions },
        "runtimeHandlers": list(&status.runtime_handlers, handler),
        "info": info(&status.info),
    }))
}

fn condition(condition: &v1::RuntimeCondition) -> Value {
    json!({
        "type": condition.r#type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
    })
}

fn handler(handler: &v1::RuntimeHandler) -> Value {
    let features = handler.features.as_ref().map(|features| {
        json!({
            "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
            "userNamespaces": features.user_namespaces,
        })
    });
    json!({ "name": handler.name, "features": features })
}

/// What a verbose answer adds. Runtimes put JSON in there as text; it is given as what it is.
pub fn info(info: &BTreeMap<String, String>) -> Value {
    let parsed =
        |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    Value::Object(info.iter().map(|(key, text)| (key.clone(), parsed(text))).collect::<Map<_, _>>())
}

/// A state of a later version of the protocol has no name here.
fn state<E>(name: Result<&'static str, E>) -> &'static str {
    name.unwrap_or("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out_and_zero_is_not() {
        let shown =
            container_status(&v1::ContainerStatus { id: "a".to_owned(), ..Default::default() });
        assert_eq!(shown, json!({ "id": "a", "state": "CONTAINER_CREATED", "exitCode": 0 }));
    }

    #[test]
    fn text_of_runtimes_is_taken_apart_where_it_is_json() {
        let texts = [("a", r#"{"pid":7}"#), ("b", "not json")];
        let given = texts.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(info(&given), json!({ "a": { "pid": 7 }, "b": "not json" }));
    }

    #[test]
    fn signals_are_named_as_people_do() {
        assert_eq!(signal(v1::Signal::Sigterm.into()), Some("SIGTERM"));
        assert_eq!(signal(v1::Signal::RuntimeDefault.into()), None);
        assert_eq!(signal(9999), None);
    }

    #[test]
    fn a_state_from_the_future_does_not_stop_us() {
        let shown = pod(&v1::PodSandbox { state: 77, ..Default::default() });
        assert_eq!(shown["state"], "UNKNOWN");
    }
}
