//! What a sandbox is to be, as Create says it: a `PodSandboxConfig` of CRI, with what goes beside it.
//! Both ways, and nothing is checked anywhere else.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
};

use cri_proto::v1::{self as cri, NamespaceMode, security_profile::ProfileType};
use names::{Class, PodId};
use oci::Namespace;
use prost::Message as _;
use sandbox_api::{Any, POD_CONFIG_URL, types, v1};

use crate::{PidNamespace, Place, Program, Sandbox, Seccomp};

/// The longest host name that the kernel takes.
const LONGEST_HOSTNAME: usize = 64;

/// A field of a request that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Rejected {
    pub field: String,
    pub why: String,
}

impl Rejected {
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    pub fn class(&self) -> Class {
        Class::InvalidArgument
    }
}

/// What a server has for its sandboxes.
pub struct Ours<'a> {
    /// The folder of their folders.
    pub sandboxes: &'a Path,
    /// What holds those that need a process.
    pub program: &'a Program,
    /// Reads a local profile.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

/// Asks for this sandbox. A seccomp profile of its own must be in the file `profile`, since CRI names
/// it by path. What only this host's files say (`shm`, the program) does not go along: whoever keeps
/// the sandbox has its own.
///
/// # Errors
/// A path is not UTF-8.
pub fn create(
    sandbox: &Sandbox,
    sandboxer: &str,
    profile: &Path,
) -> Result<v1::ControllerCreateRequest, Rejected> {
    let config = config(sandbox, profile)?;
    let options = Any { type_url: POD_CONFIG_URL.to_owned(), value: config.encode_to_vec() };
    let netns = sandbox.netns.as_deref().map(|path| text(path, "netns_path")).transpose()?;
    Ok(v1::ControllerCreateRequest {
        sandbox_id: sandbox.place.id.to_string(),
        rootfs: Vec::new(),
        options: Some(options),
        netns_path: netns.unwrap_or_default(),
        annotations: sandbox.annotations.clone(),
        sandbox: Some(types::Sandbox {
            sandbox_id: sandbox.place.id.to_string(),
            runtime: Some(types::sandbox::Runtime { name: sandbox.runtime.clone(), options: None }),
            labels: sandbox.labels.clone(),
            sandboxer: sandboxer.to_owned(),
            ..Default::default()
        }),
        sandboxer: sandboxer.to_owned(),
    })
}

fn config(sandbox: &Sandbox, profile: &Path) -> Result<cri::PodSandboxConfig, Rejected> {
    let log = sandbox.log_directory.as_deref().map(|path| text(path, "options.log_directory"));
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: sandbox.name.clone(),
            uid: sandbox.uid.clone(),
            namespace: sandbox.namespace.clone(),
            attempt: sandbox.attempt,
        }),
        hostname: sandbox.hostname.clone(),
        log_directory: log.transpose()?.unwrap_or_default(),
        labels: sandbox.labels.clone(),
        annotations: sandbox.annotations.clone(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: text(&sandbox.place.cgroup, "options.linux.cgroup_parent")?,
            security_context: Some(security(sandbox, profile)?),
            sysctls: sandbox.sysctls.clone(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn security(
    sandbox: &Sandbox,
    profile: &Path,
) -> Result<cri::LinuxSandboxSecurityContext, Rejected> {
    let id = |id: u32| cri::Int64Value { value: id.into() };
    let own_unless = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match sandbox.pid {
        PidNamespace::Container => NamespaceMode::Container,
        PidNamespace::Pod => NamespaceMode::Pod,
        PidNamespace::Host => NamespaceMode::Node,
    };
    let (profile_type, localhost_ref) = match sandbox.seccomp {
        Seccomp::Unconfined => (ProfileType::Unconfined, String::new()),
        Seccomp::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Seccomp::Profile(_) => (ProfileType::Localhost, text(profile, "the seccomp profile")?),
    };
    Ok(cri::LinuxSandboxSecurityContext {
        namespace_options: Some(cri::NamespaceOption {
            network: own_unless(sandbox.netns.is_none()).into(),
            pid: pid.into(),
            ipc: own_unless(sandbox.host_ipc).into(),
            ..Default::default()
        }),
        run_as_user: sandbox.user.map(id),
        run_as_group: sandbox.group.map(id),
        supplemental_groups: sandbox.groups.iter().map(|id| i64::from(*id)).collect(),
        privileged: sandbox.privileged,
        seccomp: Some(cri::SecurityProfile { profile_type: profile_type.into(), localhost_ref }),
        ..Default::default()
    })
}

fn text(path: &Path, field: &str) -> Result<String, Rejected> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Rejected::new(field, format!("{} is not UTF-8", path.display())))
}

/// The sandbox that is asked for, at the place that this server has for it.
///
/// What a sandbox without a root filesystem and without a network of its own making has no use for is
/// not looked at: `rootfs`, DNS, ports, limits (the pod's cgroup is its client's). A runtime counts if
/// it is the path of a program; containerd's names of shims stand for the built-in one.
///
/// # Errors
/// The first field that cannot be, or that asks for what this server cannot do.
pub fn sandbox(request: v1::ControllerCreateRequest, ours: &Ours<'_>) -> Result<Sandbox, Rejected> {
    let id = id(&request.sandbox_id)?;
    let config = options(request.options)?;
    if config.windows.is_some() {
        return Err(Rejected::new("options.windows", "this is Linux"));
    }
    let metadata =
        config.metadata.ok_or_else(|| Rejected::new("options.metadata", "is missing"))?;
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let shared = shared(context.namespace_options.as_ref(), &request.netns_path)?;
    unlabelled(&context, shared.pid)?;
    let sysctls = sysctls(linux.sysctls, &shared)?;
    let mut annotations = request.annotations;
    annotations.extend(config.annotations);
    let user = context.run_as_user.map(|id| number(id.value, "run_as_user")).transpose()?;
    let group = context.run_as_group.map(|id| number(id.value, "run_as_group")).transpose()?;
    if group.is_some() && user.is_none() {
        return Err(Rejected::new(of_context("run_as_group"), "is given without run_as_user"));
    }
    let groups = context.supplemental_groups.iter();
    Ok(Sandbox {
        name: word(metadata.name, "options.metadata.name")?,
        namespace: word(metadata.namespace, "options.metadata.namespace")?,
        uid: word(metadata.uid, "options.metadata.uid")?,
        attempt: metadata.attempt,
        labels: config.labels,
        annotations,
        hostname: hostname(config.hostname, &id, &shared)?,
        log_directory: optional(&config.log_directory, "options.log_directory")?,
        netns: shared.netns,
        user_namespace: None,
        host_ipc: shared.host_ipc,
        pid: shared.pid,
        shm: None,
        sysctls,
        user,
        group,
        groups: groups.map(|id| number(*id, "supplemental_groups")).collect::<Result<_, _>>()?,
        privileged: context.privileged,
        seccomp: seccomp(&context, ours)?,
        program: ours.program.clone(),
        runtime: runtime(request.sandbox),
        place: Place {
            dir: ours.sandboxes.join(id.as_str()),
            id,
            cgroup: optional(&linux.cgroup_parent, "options.linux.cgroup_parent")?
                .unwrap_or_else(|| "/".into()),
        },
    })
}

/// The id in a request.
pub fn id(text: &str) -> Result<PodId, Rejected> {
    text.parse().map_err(|bad: names::BadId| Rejected::new("sandbox_id", bad.to_string()))
}

/// iSulad sends it without its type.
fn options(options: Option<Any>) -> Result<cri::PodSandboxConfig, Rejected> {
    let any = options.ok_or_else(|| Rejected::new("options", "is missing"))?;
    let bare = any.type_url.rsplit('/').next().unwrap_or_default();
    if !bare.is_empty() && bare != POD_CONFIG_URL {
        let why = format!("{:?} is not {POD_CONFIG_URL:?}", any.type_url);
        return Err(Rejected::new("options.type_url", why));
    }
    cri::PodSandboxConfig::decode(&*any.value)
        .map_err(|error| Rejected::new("options.value", error.to_string()))
}

/// Whose namespaces a sandbox has.
struct Shared {
    netns: Option<PathBuf>,
    host_ipc: bool,
    pid: PidNamespace,
}

fn shared(options: Option<&cri::NamespaceOption>, netns: &str) -> Result<Shared, Rejected> {
    let options = options.cloned().unwrap_or_default();
    let field = |name: &str| of_context(&format!("namespace_options.{name}"));
    let mode = |number: i32, name: &str| {
        NamespaceMode::try_from(number)
            .map_err(|_| Rejected::new(field(name), format!("{number} is no mode")))
    };
    let is_host = |number: i32, name: &str| match mode(number, name)? {
        NamespaceMode::Pod => Ok(false),
        NamespaceMode::Node => Ok(true),
        _ => Err(Rejected::new(field(name), "is not a mode that a pod can have")),
    };
    let users = options.userns_options.as_ref();
    if users.is_some_and(|users| users.mode != NamespaceMode::Node as i32) {
        return Err(Rejected::new(field("userns_options"), "user namespaces are not made here"));
    }
    let host_network = is_host(options.network, "network")?;
    let netns = match (host_network, optional(netns, "netns_path")?) {
        (false, None) => {
            return Err(Rejected::new(
                "netns_path",
                "is missing, and the pod's network is not the host's",
            ));
        }
        (true, Some(_)) => {
            return Err(Rejected::new(
                "netns_path",
                "is given, and the pod's network is the host's",
            ));
        }
        (_, netns) => netns,
    };
    Ok(Shared {
        netns,
        host_ipc: is_host(options.ipc, "ipc")?,
        pid: match mode(options.pid, "pid")? {
            NamespaceMode::Pod => PidNamespace::Pod,
            NamespaceMode::Node => PidNamespace::Host,
            NamespaceMode::Container | NamespaceMode::Target => PidNamespace::Container,
        },
    })
}

/// The init of a shared pid namespace is the one process that a label or profile of the sandbox would
/// be for; it has none, and what cannot be kept is not promised.
fn unlabelled(
    context: &cri::LinuxSandboxSecurityContext,
    pid: PidNamespace,
) -> Result<(), Rejected> {
    if pid != PidNamespace::Pod {
        return Ok(());
    }
    let label = context.selinux_options.as_ref();
    if label.is_some_and(|label| *label != cri::SeLinuxOption::default()) {
        let why = "the init of a shared pid namespace has no label";
        return Err(Rejected::new(of_context("selinux_options"), why));
    }
    let profile = context.apparmor.as_ref();
    if profile.is_some_and(|profile| profile.profile_type == ProfileType::Localhost as i32) {
        let why = "the init of a shared pid namespace has no profile of its own";
        return Err(Rejected::new(of_context("apparmor"), why));
    }
    Ok(())
}

fn sysctls(
    given: BTreeMap<String, String>,
    shared: &Shared,
) -> Result<BTreeMap<String, String>, Rejected> {
    let own_unless = |host: bool| if host { Namespace::Host } else { Namespace::Own };
    let (network, ipc) = (own_unless(shared.netns.is_none()), own_unless(shared.host_ipc));
    oci::check_sysctls(&given, &network, &ipc)
        .map_err(|error| Rejected::new("options.linux.sysctls", error.to_string()))?;
    Ok(given)
}

/// A pod that is given no name, and is not on the host's network, is called by its id.
fn hostname(given: String, id: &PodId, shared: &Shared) -> Result<String, Rejected> {
    let field = "options.hostname";
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match given.as_str() {
        "" if shared.netns.is_none() => Ok(given),
        "" => Ok(id.as_str()[..12].to_owned()),
        name if name.len() > LONGEST_HOSTNAME => {
            Err(Rejected::new(field, format!("is longer than {LONGEST_HOSTNAME} characters")))
        }
        name if !name.split('.').all(label) => {
            Err(Rejected::new(field, format!("{name:?} is not a host name")))
        }
        _ => Ok(given),
    }
}

/// None is unconfined, as CRI has it. A local profile without a path must not mean none
/// (CVE-2023-2431).
fn seccomp(
    context: &cri::LinuxSandboxSecurityContext,
    ours: &Ours<'_>,
) -> Result<Seccomp, Rejected> {
    #[expect(deprecated, reason = "clients of old still send it")]
    let old = &context.seccomp_profile_path;
    let Some(profile) = &context.seccomp else {
        return match old.as_str() {
            "" | "unconfined" => Ok(Seccomp::Unconfined),
            "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
            path => local(path.trim_start_matches("localhost/"), "seccomp_profile_path", ours),
        };
    };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Seccomp::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(Seccomp::Unconfined),
        Ok(ProfileType::Localhost) => local(&profile.localhost_ref, "seccomp.localhost_ref", ours),
        Err(_) => {
            Err(Rejected::new(of_context("seccomp.profile_type"), "is not a type of profile"))
        }
    }
}

fn local(path: &str, field: &str, ours: &Ours<'_>) -> Result<Seccomp, Rejected> {
    let field = of_context(field);
    let path = absolute(path, &field)?;
    let bytes = (ours.read)(&path);
    let unread =
        |error| Rejected::new(field, format!("{} cannot be read: {error}", path.display()));
    bytes.map(Seccomp::Profile).map_err(unread)
}

fn runtime(sandbox: Option<types::Sandbox>) -> String {
    let name = sandbox.and_then(|sandbox| sandbox.runtime).unwrap_or_default().name;
    if Path::new(&name).is_absolute() { name } else { String::new() }
}

fn of_context(field: &str) -> String {
    format!("options.linux.security_context.{field}")
}

fn number(id: i64, field: &str) -> Result<u32, Rejected> {
    u32::try_from(id).map_err(|_| Rejected::new(of_context(field), format!("{id} is not an id")))
}

/// A text that must be there, and must do as a line of a file (CVE-2022-4318).
fn word(text: String, field: &str) -> Result<String, Rejected> {
    if text.is_empty() {
        return Err(Rejected::new(field, "is missing"));
    }
    if text.chars().any(char::is_control) {
        return Err(Rejected::new(field, "has a control character"));
    }
    Ok(text)
}

fn optional(text: &str, field: &str) -> Result<Option<PathBuf>, Rejected> {
    if text.is_empty() { Ok(None) } else { absolute(text, field).map(Some) }
}

/// A path that is absolute and does not climb.
fn absolute(text: &str, field: &str) -> Result<PathBuf, Rejected> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(Rejected::new(field, format!("must be an absolute path, not {text:?}")));
    }
    if text.contains('\0') || path.components().any(|part| part == Component::ParentDir) {
        let why = format!("must not hold \"..\" or NUL, as {text:?} does");
        return Err(Rejected::new(field, why));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests;
