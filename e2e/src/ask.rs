//! Requests as the kubelet makes them, for tests to change what they are about.

use std::path::Path;

use cri_proto::v1;

/// The image that every daemon under test has.
pub const IMAGE: &str = "e2e.test/busybox:1";

/// A pod of this name, with a log folder.
pub(crate) fn pod(name: &str, log_directory: &Path) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("{name}-uid"),
            namespace: "e2e".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: log_directory.display().to_string(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What the kubelet asks for unless the pod says otherwise.
fn own_processes() -> v1::NamespaceOption {
    v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() }
}

/// The same pod, whose containers share their processes.
pub fn sharing(mut pod: v1::PodSandboxConfig) -> v1::PodSandboxConfig {
    let security = pod.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options.get_or_insert_default().pid = v1::NamespaceMode::Pod.into();
    pod
}

/// The same pod, on the network of the host.
pub fn host_network(mut pod: v1::PodSandboxConfig) -> v1::PodSandboxConfig {
    pod.hostname = String::new();
    let linux = pod.linux.get_or_insert_default();
    let options = &mut linux.security_context.get_or_insert_default().namespace_options;
    options.get_or_insert_default().network = v1::NamespaceMode::Node.into();
    pod
}

/// A container that runs this command.
pub fn container(name: &str, command: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(own_processes()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that runs until it is killed.
pub fn sleeps(name: &str) -> v1::ContainerConfig {
    container(name, &["sleep", "100000"])
}

/// A container that runs a line of shell.
pub fn shell(name: &str, line: &str) -> v1::ContainerConfig {
    container(name, &["sh", "-c", line])
}

/// The security context of a container, to be changed.
pub fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// A folder or file of the host, seen in a container.
pub fn mount(host: &Path, inside: &str) -> v1::Mount {
    v1::Mount {
        host_path: host.display().to_string(),
        container_path: inside.to_owned(),
        ..Default::default()
    }
}

/// An image, or a folder in it, seen in a container, as the kubelet asks for it.
pub fn image_mount(image: &str, sub_path: &str, inside: &str) -> v1::Mount {
    v1::Mount {
        image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
        image_sub_path: sub_path.to_owned(),
        container_path: inside.to_owned(),
        readonly: true,
        ..Default::default()
    }
}
