//! The config of a container: all parts, put together.

use std::fmt;

use oci_spec::runtime::{Linux, Root, Spec};

use crate::{
    annotations, capabilities, devices, mounts, namespaces,
    plan::{self, Namespace, Plan, Seccomp, Security},
    process,
    rejected::Rejected,
    resources::resources,
    seccomp,
};

/// The version of the OCI runtime specification that we write.
const VERSION: &str = "1.1.0";

/// A runtime config, and what was left out of it that was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    pub spec: Spec,
    pub warnings: Vec<Warning>,
}

/// Something that was asked for and that this node cannot give, and that can be done without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    pub what: String,
}

impl Warning {
    pub(crate) fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

/// The config of this container.
///
/// # Errors
/// The request can never succeed here: it is malformed, or asks for protection that the node
/// cannot give.
pub fn config(plan: &Plan) -> Result<Config, Rejected> {
    let mut warnings = Vec::new();
    check_security(&plan.security, &plan.node)?;
    let sets = capabilities::of(&plan.security, &plan.node, &mut warnings)?;
    let mut asked = plan.resources.clone();
    asked.pids = asked.pids.or(plan.node.pids_limit);
    let limits = resources(&asked, &plan.node, &mut warnings)?;
    let mounts = mounts::of(plan)?;
    let devices = devices::of(plan)?;
    let mut linux = bare_linux();
    let security = &plan.security;
    linux
        .set_namespaces(Some(namespaces::of(&plan.namespaces, own_cgroup_namespace(plan))?))
        .set_cgroups_path(Some(plan.cgroup.clone()))
        .set_resources(Some(devices::allow(limits, devices.rules)))
        .set_devices(Some(devices.nodes).filter(|nodes| !nodes.is_empty()))
        .set_rootfs_propagation(mounts.root_propagation.map(str::to_owned))
        .set_mount_label(security.mount_label.clone())
        .set_seccomp(seccomp::of(&security.seccomp, security.privileged, &sets.all, &plan.node));
    if !security.privileged {
        linux
            .set_masked_paths(paths(&security.masked_paths, "masked_paths")?)
            .set_readonly_paths(paths(&security.readonly_paths, "readonly_paths")?);
    }
    namespaces::map(&mut linux, plan.namespaces.user.as_ref());
    let mut spec = bare_spec(&plan.root);
    spec.set_hostname(hostname(&plan.pod.hostname, &plan.namespaces.uts))
        .set_process(Some(process::of(plan, sets, &mut warnings)?))
        .set_mounts(Some(mounts.list))
        .set_annotations(Some(annotations::of_container(plan)))
        .set_linux(Some(linux));
    Ok(Config { spec, warnings })
}

/// The library's defaults are of another mind than ours, so each field of them is unset.
pub(crate) fn bare_linux() -> Linux {
    let mut linux = Linux::default();
    linux.set_resources(None).set_namespaces(None).set_masked_paths(None).set_readonly_paths(None);
    linux
}

pub(crate) fn bare_spec(root: &plan::Root) -> Spec {
    let mut of = Root::default();
    of.set_path(root.path.clone()).set_readonly(Some(root.readonly));
    let mut spec = Spec::default();
    spec.set_version(VERSION.to_owned()).set_root(Some(of)).set_hostname(None);
    spec
}

/// A name is given only to a namespace that has none yet, and never to the node.
pub(crate) fn hostname(name: &str, uts: &Namespace) -> Option<String> {
    Some(name.to_owned()).filter(|name| *uts == Namespace::Own && !name.is_empty())
}

/// On v1 and for the privileged, containers see the host's cgroup names, as they always have.
fn own_cgroup_namespace(plan: &Plan) -> bool {
    plan.node.cgroup_v2 && !plan.security.privileged
}

/// Protection that cannot be given is never left out in silence.
pub(crate) fn check_security(asked: &Security, node: &plan::Node) -> Result<(), Rejected> {
    let refuse = |field: &str, what: &str| {
        let field = format!("config.linux.security_context.{field}");
        Err(Rejected::new(field, format!("this node's kernel has no {what}")))
    };
    let filtered = !asked.privileged && !matches!(asked.seccomp, Seccomp::Unconfined);
    if filtered && !node.seccomp {
        return refuse("seccomp", "seccomp");
    }
    if asked.apparmor.is_some() && !asked.privileged && !node.apparmor {
        return refuse("apparmor", "AppArmor");
    }
    if (asked.process_label.is_some() || asked.mount_label.is_some()) && !node.selinux {
        return refuse("selinux_options", "SELinux");
    }
    Ok(())
}

fn paths(paths: &[String], field: &str) -> Result<Option<Vec<String>>, Rejected> {
    for (at, path) in paths.iter().enumerate() {
        if !path.starts_with('/') || path.contains('\0') {
            let field = format!("config.linux.security_context.{field}[{at}]");
            return Err(Rejected::new(field, format!("{path:?} is not an absolute path")));
        }
    }
    Ok(Some(paths.to_vec()).filter(|paths| !paths.is_empty()))
}
