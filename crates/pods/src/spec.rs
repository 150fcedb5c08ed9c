//! The OCI config of a container: its plan, its image and its pod put together. What can be refused
//! is refused by [`check`], before anything is made, by building the config once for nothing.

use std::{
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use images::Image;
use oci::{DeviceKind, Namespace};
use rustix::fs::{Mode, OFlags};

use crate::{
    Error, Features, User,
    container::ContainerRecord,
    error::Context,
    files::{self, Files},
    host::Host,
    limits,
    plan::{ContainerPlan, Device, Mount, Profile, Propagation, Sharing},
    pod::PodRecord,
    volumes,
};

/// Files of users and groups in a root filesystem are read up to this size (CVE-2026-47262).
const LARGEST_PASSWD: u64 = 10 << 20;

/// Refuses what can never be, or cannot be here, without making anything.
pub(crate) fn check(
    host: &Host,
    pod: &PodRecord,
    plan: &ContainerPlan,
    image: &Image,
    features: Features,
) -> Result<(), Error> {
    let field = "config.linux.security_context";
    if plan.security.selinux.is_some() && !host.node.selinux {
        let why = "this host has no SELinux to confine it with";
        return Err(Error::rejected(format!("{field}.selinux_options"), why));
    }
    limits::check(&plan.resources, "config.linux.resources")?;
    // Who it will be is found in its root filesystem; and which process, when it is made.
    let (anybody, some_target) = (oci::User::default(), Some(0));
    let (bundle, cgroup) = (&*pod.state_dir, &*pod.cgroup);
    let parts = Parts { host, features, pod, plan, image, bundle, cgroup };
    oci::config(&parts.oci(anybody, some_target)?)?;
    Ok(())
}

/// The config of a container whose root filesystem is mounted.
pub(crate) fn config(
    host: &Host,
    pod: &PodRecord,
    container: &ContainerRecord,
    user: oci::User,
    pid_target: Option<u32>,
) -> Result<oci::Config, Error> {
    let image = image(host, container)?;
    // What the runtime cannot do was refused before.
    let features = Features { recursive_read_only: true, user_namespaces: true };
    let (plan, bundle, cgroup) = (&container.plan, &*container.bundle, &*container.cgroup);
    let parts = Parts { host, features, pod, plan, image: &image, bundle, cgroup };
    Ok(oci::config(&parts.oci(user, pid_target)?)?)
}

fn image(host: &Host, container: &ContainerRecord) -> Result<std::sync::Arc<Image>, Error> {
    host.images.find(container.image.as_str()).ok_or_else(|| {
        Error::precondition(format!("the image {} has been removed", container.image))
    })
}

/// Who the container's first process is: as asked for, else as the image says, by the names that
/// its root filesystem knows.
pub(crate) fn user(host: &Host, container: &ContainerRecord) -> Result<oci::User, Error> {
    let image = image(host, container)?;
    let path = container.bundle.join("rootfs");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let rootfs = rustix::fs::open(&path, flags, Mode::empty()).on("opening", &path)?;
    let read = |name: &str| {
        let file = sys::rootfs_file::read_beneath(rootfs.as_fd(), Path::new(name), LARGEST_PASSWD);
        file.on("reading", path.join(name))
    };
    let passwd = oci::Passwd::parse(&read("etc/passwd")?.unwrap_or_default());
    let groups = oci::Groups::parse(&read("etc/group")?.unwrap_or_default());
    let security = &container.plan.security;
    let ask = oci::UserAsk {
        run_as_user: security.run_as_user,
        run_as_username: security.run_as_username.clone(),
        run_as_group: security.run_as_group,
        supplemental_groups: security.supplemental_groups.clone(),
        policy: if security.strict_groups { oci::Policy::Strict } else { oci::Policy::Merge },
        image_user: image.config.user.clone(),
    };
    Ok(oci::resolve_user(&ask, &passwd, &groups)?)
}

impl From<oci::User> for User {
    fn from(user: oci::User) -> Self {
        Self { uid: user.uid, gid: user.gid, groups: user.groups }
    }
}

struct Parts<'a> {
    host: &'a Host,
    features: Features,
    pod: &'a PodRecord,
    plan: &'a ContainerPlan,
    image: &'a Image,
    bundle: &'a Path,
    cgroup: &'a Path,
}

impl Parts<'_> {
    fn oci(&self, user: oci::User, pid_target: Option<u32>) -> Result<oci::Plan, Error> {
        let plan = self.plan;
        let mut node = self.host.node.clone();
        node.recursive_read_only &= self.features.recursive_read_only;
        if plan.security.privileged {
            node.devices = devices_below(Path::new("/dev"), Path::new("/dev"), "rwm")?;
        }
        Ok(oci::Plan {
            pod: self.named_pod(),
            name: plan.name.clone(),
            image: crate::plan::shown_image(plan).to_owned(),
            annotations: names::Labels::new(),
            root: oci::Root { path: "rootfs".into(), readonly: plan.security.readonly_rootfs },
            process: self.process(user),
            security: self.security()?,
            namespaces: self.namespaces(pid_target)?,
            pod_files: self.pod_files(),
            mounts: self.mounts()?,
            image_volumes: Vec::new(),
            devices: devices(&plan.devices)?,
            resources: limits::oci(&plan.resources),
            cgroup: self.cgroup.to_owned(),
            node,
        })
    }

    fn mounts(&self) -> Result<Vec<oci::Mount>, Error> {
        let mounts = self.plan.mounts.iter().enumerate();
        let mount = |(n, asked): (usize, &Mount)| {
            let made = asked.image.is_some() || asked.owners.is_some();
            let volume = made.then(|| volumes::target(self.bundle, n));
            let source = volume.map_or_else(|| on_host(n, &asked.host_path), Ok);
            source.map(|source| mount(source, asked))
        };
        mounts.map(mount).collect()
    }

    fn named_pod(&self) -> oci::Pod {
        let name = self.pod.name();
        oci::Pod {
            id: self.pod.id.clone(),
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            uid: name.uid.clone(),
            hostname: files::hostname(self.pod),
        }
    }

    fn process(&self, user: oci::User) -> oci::Process {
        let (plan, image) = (self.plan, &self.image.config);
        let env = |(name, value): &(String, Vec<u8>)| oci::Env {
            name: name.clone(),
            value: value.clone(),
        };
        oci::Process {
            image: oci::ImageProcess {
                entrypoint: image.entrypoint.clone(),
                cmd: image.cmd.clone(),
                env: image.env.clone(),
                working_dir: image.working_dir.clone(),
            },
            command: plan.command.clone(),
            args: plan.args.clone(),
            env: plan.envs.iter().map(env).collect(),
            working_dir: plan.working_dir.clone(),
            tty: plan.tty,
            user,
            oom_score_adj: Some(plan.resources.oom_score_adj),
        }
    }

    fn security(&self) -> Result<oci::Security, Error> {
        let asked = &self.plan.security;
        Ok(oci::Security {
            privileged: asked.privileged,
            capabilities: oci::CapabilityAsk {
                add: asked.add_capabilities.clone(),
                drop: asked.drop_capabilities.clone(),
                ambient: asked.ambient_capabilities.clone(),
            },
            no_new_privs: asked.no_new_privs,
            seccomp: seccomp(&asked.seccomp)?,
            apparmor: self.apparmor()?,
            process_label: None,
            mount_label: None,
            masked_paths: asked.masked_paths.clone(),
            readonly_paths: asked.readonly_paths.clone(),
        })
    }

    /// The privileged are confined by nothing, whatever they ask for, as in containerd.
    fn apparmor(&self) -> Result<Option<String>, Error> {
        let asked = &self.plan.security;
        if asked.privileged {
            return Ok(None);
        }
        crate::apparmor::profile(asked.apparmor.as_ref(), self.host.node.apparmor)
    }

    /// A namespace that is not there is an error: the host's must never stand in for it.
    fn namespaces(&self, pid_target: Option<u32>) -> Result<oci::Namespaces, Error> {
        let started = self.pod.started.as_ref().map(|started| started.namespaces.clone());
        let pod = started.unwrap_or_default();
        let host_network = self.pod.plan.namespaces.host_network();
        let host_ipc = self.pod.plan.namespaces.ipc == Sharing::Node;
        // As in a machine of its own: there each container has its own, and whoever keeps the sandbox
        // sees to what is shared.
        let out_of_sight = pod == controllers::Namespaces::default();
        let shared = |host: bool, kind, path: Option<PathBuf>| match host {
            true => Ok(Namespace::Host),
            false if out_of_sight && path.is_none() => Ok(Namespace::Own),
            false => join(kind, path),
        };
        Ok(oci::Namespaces {
            network: shared(host_network, "network", self.pod.netns.clone())?,
            ipc: shared(host_ipc, "ipc", pod.ipc)?,
            uts: shared(host_network, "uts", pod.uts)?,
            pid: match &self.plan.security.pid {
                Sharing::Container => Namespace::Own,
                Sharing::Node => Namespace::Host,
                Sharing::Pod => self.pod_pid(pod.pid)?,
                Sharing::Target(_) => {
                    join("pid", pid_target.map(|pid| format!("/proc/{pid}/ns/pid").into()))?
                }
            },
            user: crate::owners::joined(self.pod),
        })
    }

    fn pod_pid(&self, path: Option<PathBuf>) -> Result<Namespace, Error> {
        if path.is_none() && self.pod.plan.namespaces.pid != Sharing::Pod {
            let why = "the pod was made without a pid namespace to share; make both POD";
            let field = "config.linux.security_context.namespace_options.pid";
            return Err(Error::rejected(field, why));
        }
        join("pid", path)
    }

    fn pod_files(&self) -> oci::PodFiles {
        let files = Files(self.pod);
        oci::PodFiles {
            hosts: Some(files.hosts()),
            hostname: Some(files.hostname()),
            resolv_conf: Some(files.resolv_conf()),
            shm: Some(files.shm()),
        }
    }
}

fn join(kind: &str, path: Option<PathBuf>) -> Result<Namespace, Error> {
    let gone =
        || Error::precondition(format!("the {kind} namespace to share is not there any more"));
    path.map(Namespace::Join).ok_or_else(gone)
}

fn seccomp(profile: &Profile) -> Result<oci::Seccomp, Error> {
    Ok(match crate::pod_steps::seccomp(profile)? {
        controllers::Seccomp::Unconfined => oci::Seccomp::Unconfined,
        controllers::Seccomp::RuntimeDefault => oci::Seccomp::RuntimeDefault,
        controllers::Seccomp::Profile(bytes) => {
            let bad =
                |bad: oci::BadProfile| Error::rejected("security_context.seccomp", bad.to_string());
            oci::Seccomp::Profile(Box::new(oci::parse_seccomp(&bytes).map_err(bad)?))
        }
    })
}

pub(crate) fn on_host(n: usize, path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|error| {
        let field = format!("config.mounts[{n}].host_path");
        Error::rejected(field, format!("{} cannot be mounted: {error}", path.display()))
    })
}

fn mount(source: PathBuf, mount: &Mount) -> oci::Mount {
    oci::Mount {
        container_path: mount.container_path.display().to_string(),
        host_path: source,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: match mount.propagation {
            Propagation::Private => oci::Propagation::Private,
            Propagation::HostToContainer => oci::Propagation::HostToContainer,
            Propagation::Bidirectional => oci::Propagation::Bidirectional,
        },
        ..oci::Mount::default()
    }
}

/// A folder stands for all devices in it.
fn devices(asked: &[Device]) -> Result<Vec<oci::Device>, Error> {
    let mut all = Vec::new();
    for (n, device) in asked.iter().enumerate() {
        let (host, inside) = (&device.host_path, &device.container_path);
        let field = format!("config.devices[{n}].host_path");
        let missing = |error| Error::rejected(&field, format!("{}: {error}", host.display()));
        let real = host.canonicalize().map_err(missing)?;
        if real.is_dir() {
            all.extend(devices_below(&real, inside, &device.permissions)?);
        } else {
            let not = || Error::rejected(&field, format!("{} is not a device", host.display()));
            all.push(self::device(&real, inside, &device.permissions)?.ok_or_else(not)?);
        }
    }
    Ok(all)
}

/// What is in /dev of a container's own, and would be hidden or confused by the host's.
const OF_CONTAINERS: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", "console"];

fn devices_below(dir: &Path, inside: &Path, permissions: &str) -> Result<Vec<oci::Device>, Error> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).on("reading", dir)?.flatten() {
        let name = entry.file_name();
        if OF_CONTAINERS.iter().any(|own| name == *own) {
            continue;
        }
        let (path, inside) = (entry.path(), inside.join(&name));
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(devices_below(&path, &inside, permissions)?),
            _ => all.extend(device(&path, &inside, permissions)?),
        }
    }
    Ok(all)
}

/// The device at `path`; none if it is something else, or has just gone.
fn device(path: &Path, inside: &Path, permissions: &str) -> Result<Option<oci::Device>, Error> {
    let Ok(meta) = path.symlink_metadata() else { return Ok(None) };
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => DeviceKind::Character,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return Ok(None),
    };
    Ok(Some(oci::Device {
        container_path: inside.to_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()).into(),
        minor: rustix::fs::minor(meta.rdev()).into(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        permissions: permissions.to_owned(),
    }))
}
