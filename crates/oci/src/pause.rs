//! The config of a pause container: the process that holds a pod's namespaces, and does nothing
//! else, and may do nothing else.

use std::{collections::HashMap, path::PathBuf};

use names::Labels;
use oci_spec::runtime::{LinuxCpu, LinuxResources, Mount, Process, Spec};

use crate::{
    annotations,
    capabilities::Sets,
    config::{Config, bare_linux, bare_spec, check_security, hostname},
    devices, mounts, namespaces,
    plan::{Namespace, Namespaces, Node, Pod, Root, Security},
    process,
    rejected::Rejected,
    seccomp,
    sysctls::check_sysctls,
    user::User,
};

/// The pause process goes last when memory is short: with it goes the pod.
const OOM_SCORE: i64 = -998;
/// The least there is.
const CPU_SHARES: u64 = 2;

/// Everything that a pause container's config is made from.
#[derive(Clone, Debug)]
pub struct PausePlan {
    pub pod: Pod,
    pub image: String,
    /// Annotations that the administrator lets through to the runtime. Ours win over them.
    pub annotations: Labels,
    /// Read-only, whatever `readonly` says.
    pub root: PathBuf,
    pub args: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    pub user: User,
    /// Of these, only `privileged`, `seccomp` and the labels count.
    pub security: Security,
    pub namespaces: Namespaces,
    /// The pod's shared memory; the host's own if the pod is in its IPC namespace.
    pub shm: Option<PathBuf>,
    pub sysctls: Labels,
    pub cgroup: PathBuf,
    pub node: Node,
}

/// The config of this pod's pause container.
///
/// # Errors
/// As of [`crate::config`]; also a sysctl that is not the pod's own to set.
pub fn pause_config(plan: &PausePlan) -> Result<Config, Rejected> {
    check_security(&plan.security, &plan.node)?;
    check_sysctls(&plan.sysctls, &plan.namespaces.network, &plan.namespaces.ipc)?;
    if plan.args.is_empty() {
        return Err(Rejected::new("image.config.entrypoint", "the pause image has no command"));
    }
    let own_cgroup = plan.node.cgroup_v2 && !plan.security.privileged;
    let none = Sets::none();
    let filter = &plan.security;
    let mut linux = bare_linux();
    linux
        .set_namespaces(Some(namespaces::of(&plan.namespaces, own_cgroup)?))
        .set_cgroups_path(Some(plan.cgroup.clone()))
        .set_resources(Some(devices::allow(least(), devices::standard_rules())))
        .set_mount_label(filter.mount_label.clone())
        .set_seccomp(seccomp::of(&filter.seccomp, filter.privileged, &none.all, &plan.node))
        .set_sysctl(sysctls(&plan.sysctls));
    namespaces::map(&mut linux, plan.namespaces.user.as_ref());
    let mut spec: Spec = bare_spec(&Root { path: plan.root.clone(), readonly: true });
    spec.set_hostname(hostname(&plan.pod.hostname, &plan.namespaces.uts))
        .set_process(Some(process(plan, none)?))
        .set_mounts(Some(mounts(plan)))
        .set_annotations(Some(annotations::of_sandbox(&plan.pod, &plan.image, &plan.annotations)))
        .set_linux(Some(linux));
    Ok(Config { spec, warnings: Vec::new() })
}

fn process(plan: &PausePlan, none: Sets) -> Result<Process, Rejected> {
    let mut process = Process::default();
    process
        .set_terminal(Some(false))
        .set_user(process::user(&plan.user))
        .set_args(Some(plan.args.clone()))
        .set_env(Some(process::plain_env(&plan.env)))
        .set_cwd("/".into())
        .set_capabilities(Some(none.into_spec()))
        .set_rlimits(None)
        .set_no_new_privileges(Some(true))
        .set_apparmor_profile(None)
        .set_selinux_label(plan.security.process_label.clone())
        .set_oom_score_adj(Some(process::oom_score(OOM_SCORE, &plan.node, None)?));
    Ok(process)
}

fn least() -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(CPU_SHARES));
    let mut least = LinuxResources::default();
    least.set_cpu(Some(cpu));
    least
}

fn sysctls(sysctls: &Labels) -> Option<HashMap<String, String>> {
    Some(sysctls.clone().into_iter().collect()).filter(|all: &HashMap<_, _>| !all.is_empty())
}

fn mounts(plan: &PausePlan) -> Vec<Mount> {
    let foreign = plan.namespaces.network == Namespace::Host && plan.namespaces.user.is_some();
    let sys = if foreign { mounts::SYS_OF_HOST } else { mounts::SYS };
    let mut all: Vec<Mount> = [mounts::PROC, mounts::DEV, mounts::MQUEUE, sys]
        .map(|of| mounts::standard_mount(of, false))
        .into();
    all.extend(plan.shm.clone().map(|shm| {
        let options = ["rbind", "ro", "nosuid", "nodev", "noexec"];
        let mut mount = Mount::default();
        mount
            .set_destination("/dev/shm".into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(shm))
            .set_options(Some(options.map(str::to_owned).into()));
        mount
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::pause_plan;

    #[test]
    fn a_sysctl_of_a_namespace_that_is_the_hosts_is_refused() {
        let mut plan = pause_plan();
        plan.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        assert!(pause_config(&plan).is_ok());
        plan.namespaces.network = Namespace::Host;
        let error = pause_config(&plan).unwrap_err();
        assert_eq!(error.field(), "config.linux.sysctls[net.ipv4.ip_forward]");
    }

    #[test]
    fn a_pod_in_the_hosts_uts_namespace_does_not_rename_the_host() {
        let mut plan = pause_plan();
        assert!(pause_config(&plan).unwrap().spec.hostname().is_some());
        plan.namespaces.uts = Namespace::Host;
        assert_eq!(*pause_config(&plan).unwrap().spec.hostname(), None);
    }
}
