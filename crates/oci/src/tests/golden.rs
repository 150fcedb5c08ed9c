//! Whole configs, compared with files. `PODBAY_BLESS=1` writes the files anew: then read the diff,
//! for each line of it is a decision.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    Config, IdMapping, Propagation, Seccomp, UserNamespace, config, parse_seccomp, pause_config,
    to_json,
};

fn is_as_in(name: &str, config: &Config) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.json"));
    let mut made = String::from_utf8(to_json(&config.spec)).unwrap();
    made.push('\n');
    if std::env::var_os("PODBAY_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == made, "{name} differs from {}; made was:\n{made}", path.display());
}

fn config_of(change: impl FnOnce(&mut Plan)) -> Config {
    let mut plan = plan();
    change(&mut plan);
    config(&plan).unwrap()
}

#[test]
fn a_plain_container() {
    let config = config_of(|_| {});
    is_as_in("plain", &config);
    assert_eq!(config.warnings, []);
}

#[test]
fn a_plain_container_on_cgroup_v1() {
    is_as_in("plain-v1", &config_of(|plan| plan.node.cgroup_v2 = false));
}

#[test]
fn a_privileged_container() {
    let privileged = config_of(|plan| {
        plan.security.privileged = true;
        plan.security.seccomp = Seccomp::RuntimeDefault;
        plan.security.apparmor = Some("podbay-default".into());
        plan.mounts = vec![mount("/host", "/")];
    });
    is_as_in("privileged", &privileged);
}

#[test]
fn a_container_in_the_hosts_namespaces() {
    let host = config_of(|plan| {
        plan.namespaces = Namespaces {
            network: Namespace::Host,
            ipc: Namespace::Host,
            uts: Namespace::Host,
            pid: Namespace::Host,
            user: None,
        };
        plan.pod_files.shm = Some("/dev/shm".into());
    });
    is_as_in("host-namespaces", &host);
}

#[test]
fn a_container_in_a_user_namespace_and_the_hosts_network() {
    let user = config_of(|plan| {
        let all = vec![IdMapping { host: 65536, container: 0, length: 65536 }];
        let path = Some("/run/podbay/pods/p/ns/user".into());
        plan.namespaces.user = Some(UserNamespace { path, uids: all.clone(), gids: all });
        plan.namespaces.network = Namespace::Host;
        plan.namespaces.pid = joined("pid");
    });
    is_as_in("user-namespace", &user);
}

#[test]
fn a_container_with_mounts_of_every_kind() {
    let mounts = config_of(|plan| {
        plan.root.readonly = true;
        let readonly = Mount { readonly: true, ..mount("/etc/config", "/k/config") };
        plan.mounts = vec![
            mount("/data/deep/er", "/k/deeper"),
            readonly.clone(),
            Mount { recursive_read_only: true, ..readonly },
            Mount { propagation: Propagation::HostToContainer, ..mount("/slave", "/k/slave") },
            Mount { propagation: Propagation::Bidirectional, ..mount("/shared", "/k/shared") },
            mount("/data", "/k/data"),
            mount("/etc/hosts", "/k/hosts"),
            Mount { options: vec!["noexec".into()], ..mount("/noexec", "/k/noexec") },
        ];
        plan.image_volumes = vec![mount("/data", "/v/data"), mount("var/lib", "/v/lib")];
    });
    is_as_in("mounts", &mounts);
}

#[test]
fn a_container_with_capabilities_labels_devices_and_all_limits() {
    let asking = config_of(|plan| {
        plan.process.tty = true;
        plan.process.command = vec!["/bin/sh".into()];
        plan.process.args = Vec::new();
        plan.security.no_new_privs = true;
        plan.security.apparmor = Some("podbay-default".into());
        plan.security.process_label = Some("system_u:system_r:container_t:s0:c1,c2".into());
        plan.security.mount_label = Some("system_u:object_r:container_file_t:s0:c1,c2".into());
        plan.security.capabilities = CapabilityAsk {
            add: ["NET_ADMIN", "CAP_SYS_TIME", "SYS_RESOURCE"].map(str::to_owned).into(),
            drop: vec!["MKNOD".into()],
            ambient: vec!["NET_BIND_SERVICE".into()],
        };
        plan.devices = vec![device("/dev/fuse", 10, 229, "rw")];
        plan.resources = Resources {
            cpu_shares: Some(2),
            cpu_quota: Some(-1),
            cpu_period: Some(50_000),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: Some("0".into()),
            memory: Some(1 << 30),
            memory_swap: Some(2 << 30),
            pids: Some(100),
            hugepages: vec![("2MB".into(), 4 << 20)],
            unified: [("memory.high".to_owned(), "1000000".to_owned())].into(),
        };
    });
    is_as_in("asking", &asking);
    assert_eq!(asking.warnings.len(), 1, "{:?}", asking.warnings);
}

#[test]
fn a_container_with_the_default_filter() {
    let filtered = config_of(|plan| plan.security.seccomp = Seccomp::RuntimeDefault);
    is_as_in("seccomp-default", &filtered);
}

#[test]
fn a_container_with_the_default_filter_for_an_administrator_on_arm() {
    let filtered = config_of(|plan| {
        plan.node.architecture = Architecture::Aarch64;
        plan.security.capabilities.add = vec!["ALL".into()];
        plan.security.seccomp = Seccomp::RuntimeDefault;
    });
    is_as_in("seccomp-default-admin-arm", &filtered);
}

#[test]
fn a_container_with_a_filter_of_its_own() {
    let profile = br#"{"defaultAction":"SCMP_ACT_ALLOW",
        "syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let profile = Box::new(parse_seccomp(profile).unwrap());
    let filtered = config_of(|plan| plan.security.seccomp = Seccomp::Profile(profile));
    is_as_in("seccomp-profile", &filtered);
}

#[test]
fn a_pause_container() {
    let mut plan = pause_plan();
    plan.security.seccomp = Seccomp::RuntimeDefault;
    is_as_in("pause", &pause_config(&plan).unwrap());
}

#[test]
fn a_pause_container_in_the_hosts_network() {
    let mut plan = pause_plan();
    plan.namespaces.network = Namespace::Host;
    plan.namespaces.uts = Namespace::Host;
    plan.node.oom_score_floor = Some(0);
    is_as_in("pause-host-network", &pause_config(&plan).unwrap());
}

#[test]
fn the_same_plan_makes_the_same_bytes() {
    let first = to_json(&config(&plan()).unwrap().spec);
    assert!((0..20).all(|_| to_json(&config(&plan()).unwrap().spec) == first));
}

#[test]
fn protection_that_the_node_cannot_give_is_refused_by_its_field() {
    let field = |change: fn(&mut Plan)| {
        let mut plan = plan();
        change(&mut plan);
        config(&plan).unwrap_err().field().rsplit('.').next().unwrap().to_owned()
    };
    let seccomp = field(|plan| {
        plan.node.seccomp = false;
        plan.security.seccomp = Seccomp::RuntimeDefault;
    });
    let apparmor = field(|plan| {
        plan.node.apparmor = false;
        plan.security.apparmor = Some("x".into());
    });
    let selinux = field(|plan| {
        plan.node.selinux = false;
        plan.security.process_label = Some("x".into());
    });
    assert_eq!([seccomp, apparmor, selinux], ["seccomp", "apparmor", "selinux_options"]);
}
