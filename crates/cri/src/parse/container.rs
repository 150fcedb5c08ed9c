//! `ContainerConfig`, made into a plan.

use std::path::{Component, Path, PathBuf};

use cri_proto::v1;
use pods::plan::{
    ContainerPlan, ContainerSecurity, Device, ImageMount, Mount, Propagation, Sharing,
};

use super::{Rejected, absolute, needed, rejected, security, word};

/// The container that the request asks for.
pub fn container(config: v1::ContainerConfig) -> Result<ContainerPlan, Rejected> {
    let metadata = needed(config.metadata, "config.metadata")?;
    let image = needed(config.image, "config.image")?;
    let linux = config.linux.unwrap_or_default();
    if !config.cdi_devices.is_empty() {
        return Err(rejected("config.CDI_devices", "CDI devices are not supported yet"));
    }
    Ok(ContainerPlan {
        name: word(metadata.name, "config.metadata.name")?,
        attempt: metadata.attempt,
        image: word(image.image, "config.image.image")?,
        user_image: image.user_specified_image,
        command: config.command,
        args: config.args,
        working_dir: working_dir(config.working_dir)?,
        envs: config.envs.into_iter().enumerate().map(env).collect::<Result<_, _>>()?,
        mounts: config.mounts.into_iter().enumerate().map(mount).collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().enumerate().map(device).collect::<Result<_, _>>()?,
        labels: config.labels,
        annotations: config.annotations,
        log_path: log_path(&config.log_path)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal: stop_signal(config.stop_signal)?,
        resources: security::resources(
            linux.resources.unwrap_or_default(),
            "config.linux.resources",
        )?,
        security: security(linux.security_context.unwrap_or_default())?,
    })
}

fn working_dir(text: String) -> Result<String, Rejected> {
    if text.is_empty() {
        return Ok(text);
    }
    absolute(&text, "config.working_dir").map(|_| text)
}

/// A name must be there and hold no `=`, so that no variable of ours can be meant (CVE-2026-57231).
fn env((n, pair): (usize, v1::KeyValue)) -> Result<(String, Vec<u8>), Rejected> {
    let field = format!("config.envs[{n}]");
    if pair.key.is_empty() || pair.key.contains(['=', '\0']) {
        return Err(rejected(format!("{field}.key"), format!("{:?} is not a name", pair.key)));
    }
    if pair.value.contains(&0) {
        return Err(rejected(format!("{field}.value"), format!("of {} holds NUL", pair.key)));
    }
    Ok((pair.key, pair.value))
}

fn mount((n, mount): (usize, v1::Mount)) -> Result<Mount, Rejected> {
    let field = format!("config.mounts[{n}]");
    let image = image_mount(&mount, &field)?;
    // They confine, and Status says that they are not offered.
    if !mount.mount_options.is_empty() {
        return Err(rejected(format!("{field}.mount_options"), "are not supported yet"));
    }
    let (uids, gids) = (&mount.uid_mappings, &mount.gid_mappings);
    let owners = security::owners((uids, "uidMappings"), (gids, "gidMappings"), &field)?;
    let propagation = match v1::MountPropagation::try_from(mount.propagation) {
        Ok(v1::MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(v1::MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(v1::MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        Err(_) => return Err(rejected(format!("{field}.propagation"), "is not a propagation")),
    };
    if owners.is_some() && propagation == Propagation::Bidirectional {
        let why =
            "cannot be, with mappings of ids: what a container mounts has no owner on the host";
        return Err(rejected(format!("{field}.propagation"), why));
    }
    if mount.recursive_read_only && (!mount.readonly || propagation != Propagation::Private) {
        return Err(rejected(
            format!("{field}.recursive_read_only"),
            "needs readonly, and private propagation",
        ));
    }
    Ok(Mount {
        container_path: inside(&mount.container_path, &format!("{field}.container_path"))?,
        host_path: match image {
            Some(_) => PathBuf::new(),
            None => absolute(&mount.host_path, &format!("{field}.host_path"))?,
        },
        image,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        owners,
    })
}

/// The image that a mount is of, if it is of one. Such a mount is read-only, and must say so.
fn image_mount(mount: &v1::Mount, field: &str) -> Result<Option<ImageMount>, Rejected> {
    let wrong = |part: &str, why: &str| Err(rejected(format!("{field}.{part}"), why));
    let Some(image) = mount.image.as_ref().filter(|image| !image.image.is_empty()) else {
        return match mount.image_sub_path.as_str() {
            "" => Ok(None),
            _ => wrong("image_sub_path", "has no meaning without an image"),
        };
    };
    if !mount.host_path.is_empty() {
        return wrong("host_path", "must be empty, since an image is mounted");
    }
    if !mount.readonly {
        return wrong("readonly", "must be true: an image is mounted read-only");
    }
    Ok(Some(ImageMount {
        image: word(image.image.clone(), &format!("{field}.image.image"))?,
        user_image: image.user_specified_image.clone(),
        sub_path: sub_path(&mount.image_sub_path, &format!("{field}.image_sub_path"))?,
    }))
}

/// A path in an image, from its root on.
fn sub_path(text: &str, field: &str) -> Result<PathBuf, Rejected> {
    let path = Path::new(text);
    let climbs = !path.components().all(|part| matches!(part, Component::Normal(_)));
    if climbs && !text.is_empty() || text.contains('\0') {
        let why = format!("must be a relative path without \".\" and \"..\", not {text:?}");
        return Err(rejected(field, why));
    }
    Ok(path.to_owned())
}

/// A path in the container. A relative one is taken from its root, as containerd does.
fn inside(text: &str, field: &str) -> Result<PathBuf, Rejected> {
    if text.is_empty() {
        return Err(rejected(field, "is missing"));
    }
    absolute(Path::new("/").join(text).to_str().unwrap_or_default(), field)
}

fn device((n, device): (usize, v1::Device)) -> Result<Device, Rejected> {
    let field = format!("config.devices[{n}]");
    let container_path = match device.container_path.as_str() {
        "" => absolute(&device.host_path, &format!("{field}.host_path"))?,
        path => absolute(path, &format!("{field}.container_path"))?,
    };
    if !device.permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        return Err(rejected(
            format!("{field}.permissions"),
            format!("{:?} is not made of r, w and m", device.permissions),
        ));
    }
    Ok(Device {
        container_path,
        host_path: absolute(&device.host_path, &format!("{field}.host_path"))?,
        permissions: device.permissions,
    })
}

/// A path below the pod's log directory (CVE-2025-0750).
fn log_path(text: &str) -> Result<Option<PathBuf>, Rejected> {
    let path = Path::new(text);
    if text.is_empty() {
        return Ok(None);
    }
    let below = path.components().all(|part| matches!(part, Component::Normal(_)));
    if below && !text.contains(['\0', '\n']) {
        return Ok(Some(path.to_owned()));
    }
    Err(rejected("config.log_path", format!("{text:?} is not below the pod's log directory")))
}

fn stop_signal(number: i32) -> Result<i32, Rejected> {
    match v1::Signal::try_from(number) {
        Ok(_) => Ok(number),
        Err(_) => Err(rejected("config.stop_signal", format!("{number} is not a signal"))),
    }
}

fn security(context: v1::LinuxContainerSecurityContext) -> Result<ContainerSecurity, Rejected> {
    let field = "config.linux.security_context";
    let user = (&context.run_as_user, &context.run_as_group, context.run_as_username.as_str());
    security::group_needs_user(user.0, user.1, user.2, field)?;
    let capabilities = context.capabilities.unwrap_or_default();
    let namespaces = context.namespace_options.unwrap_or_default();
    #[expect(deprecated, reason = "kubelets of old and critest still send them")]
    let (seccomp_path, apparmor_name) = (context.seccomp_profile_path, context.apparmor_profile);
    Ok(ContainerSecurity {
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        ambient_capabilities: capabilities.add_ambient_capabilities,
        privileged: context.privileged,
        pid: pid(namespaces.pid, &namespaces.target_id, field)?,
        user: security::user_namespace(
            namespaces.userns_options,
            &format!("{field}.namespace_options"),
        )?,
        run_as_user: context.run_as_user.map(|id| id.value),
        run_as_username: context.run_as_username,
        run_as_group: context.run_as_group.map(|id| id.value),
        supplemental_groups: context.supplemental_groups,
        strict_groups: context.supplemental_groups_policy
            == v1::SupplementalGroupsPolicy::Strict as i32,
        readonly_rootfs: context.readonly_rootfs,
        no_new_privs: context.no_new_privs,
        masked_paths: context.masked_paths,
        readonly_paths: context.readonly_paths,
        seccomp: security::seccomp(context.seccomp, &seccomp_path, field)?,
        apparmor: security::apparmor(context.apparmor, &apparmor_name, field)?,
        selinux: context.selinux_options.and_then(security::selinux),
    })
}

fn pid(number: i32, target: &str, field: &str) -> Result<Sharing, Rejected> {
    let field = format!("{field}.namespace_options");
    match security::sharing(number, target) {
        Some(Sharing::Target(id)) if id.is_empty() => {
            Err(rejected(format!("{field}.target_id"), "is missing"))
        }
        Some(mode) => Ok(mode),
        None => Err(rejected(format!("{field}.pid"), "is not a mode")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: "busybox".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn the_smallest_request_is_a_container() {
        let plan = container(config()).unwrap();
        assert_eq!((plan.name.as_str(), plan.image.as_str()), ("c", "busybox"));
        assert_eq!(plan.security.pid, Sharing::Pod);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let why = |change: fn(&mut v1::ContainerConfig)| {
            let mut config = config();
            change(&mut config);
            container(config).unwrap_err().field
        };
        assert_eq!(why(|c| c.metadata = None), "config.metadata");
        assert_eq!(why(|c| c.image = None), "config.image");
        assert_eq!(why(|c| c.log_path = "../../etc/passwd".into()), "config.log_path");
        assert_eq!(why(|c| c.working_dir = "x".into()), "config.working_dir");
        let relative = |c: &mut v1::ContainerConfig| {
            c.mounts = vec![v1::Mount {
                host_path: "etc".into(),
                container_path: "/a".into(),
                ..Default::default()
            }];
        };
        assert_eq!(why(relative), "config.mounts[0].host_path");
        let no_name = |c: &mut v1::ContainerConfig| {
            c.envs = vec![v1::KeyValue { key: "A=B".into(), value: vec![] }];
        };
        assert_eq!(why(no_name), "config.envs[0].key");
        let half_rro = |c: &mut v1::ContainerConfig| {
            c.mounts = vec![v1::Mount {
                host_path: "/a".into(),
                container_path: "/a".into(),
                recursive_read_only: true,
                ..Default::default()
            }];
        };
        assert_eq!(why(half_rro), "config.mounts[0].recursive_read_only");
    }

    /// A mount of an image as the kubelet asks for it, changed.
    fn of_image(change: impl FnOnce(&mut v1::Mount)) -> Result<Mount, Rejected> {
        let image = v1::ImageSpec {
            image: "sha256:ab".into(),
            user_specified_image: "app:1".into(),
            ..Default::default()
        };
        let mut mount = v1::Mount {
            container_path: "/data".into(),
            image: Some(image),
            readonly: true,
            ..Default::default()
        };
        change(&mut mount);
        let container = container(v1::ContainerConfig { mounts: vec![mount], ..config() });
        container.map(|plan| plan.mounts[0].clone())
    }

    #[test]
    fn a_mount_of_an_image_has_no_path_on_the_host() {
        let mount = of_image(|mount| mount.image_sub_path = "a//b/./c/".into()).unwrap();
        let image = mount.image.unwrap();
        assert_eq!((image.image.as_str(), image.user_image.as_str()), ("sha256:ab", "app:1"));
        assert_eq!(image.sub_path, Path::new("a/b/c"));
        assert!(mount.host_path.as_os_str().is_empty() && mount.readonly);
        assert_eq!(of_image(|_| {}).unwrap().image.unwrap().sub_path, Path::new(""));
        let of_host = of_image(|mount| {
            mount.image = Some(v1::ImageSpec::default());
            mount.host_path = "/h".into();
        });
        assert_eq!(of_host.unwrap().image, None, "an image without a name is none");
    }

    #[test]
    fn what_a_mount_of_an_image_cannot_be_is_told_with_its_field() {
        let field = |change: fn(&mut v1::Mount)| of_image(change).unwrap_err().field;
        assert_eq!(field(|m| m.host_path = "/h".into()), "config.mounts[0].host_path");
        assert_eq!(field(|m| m.readonly = false), "config.mounts[0].readonly");
        let options = |m: &mut v1::Mount| m.mount_options = vec!["noexec".into()];
        assert_eq!(field(options), "config.mounts[0].mount_options");
        let paths: [fn(&mut v1::Mount); 6] = [
            |m| m.image_sub_path = "/etc".into(),
            |m| m.image_sub_path = "..".into(),
            |m| m.image_sub_path = "a/../../b".into(),
            |m| m.image_sub_path = "./a".into(),
            |m| m.image_sub_path = "a\0b".into(),
            |m| (m.image, m.host_path, m.image_sub_path) = (None, "/h".into(), "a".into()),
        ];
        for change in paths {
            assert_eq!(field(change), "config.mounts[0].image_sub_path");
        }
    }

    proptest! {
        #[test]
        fn no_log_path_leaves_its_directory(text in "[a-z./]{0,20}") {
            if let Ok(Some(path)) = log_path(&text) {
                let joined = Path::new("/logs").join(path);
                let climbs = joined.components().any(|part| part == Component::ParentDir);
                prop_assert!(joined.starts_with("/logs") && !climbs);
            }
        }
    }
}
