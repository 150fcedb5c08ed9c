use proptest::{collection::btree_map, option, prelude::*};

use super::*;

const SANDBOXES: &str = "/state/sandboxes";
const PROFILE: &str = "/pods/a/sandboxer/seccomp.json";

fn program() -> Program {
    Program { rootfs: "/root/pause".into(), args: vec!["/pause".into()], env: Vec::new() }
}

fn decode(
    request: v1::ControllerCreateRequest,
    profile: Option<&[u8]>,
) -> Result<Sandbox, Rejected> {
    let read = |path: &Path| match profile {
        Some(bytes) if path == Path::new(PROFILE) => Ok(bytes.to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let (sandboxes, program) = (Path::new(SANDBOXES), &program());
    sandbox(request, &Ours { sandboxes, program, read: &read })
}

fn plain() -> Sandbox {
    let id = PodId::from_bytes([7; 32]);
    Sandbox {
        place: Place {
            dir: Path::new(SANDBOXES).join(id.as_str()),
            id,
            cgroup: "/kubepods/pod1".into(),
        },
        name: "web".into(),
        namespace: "default".into(),
        uid: "u-1".into(),
        attempt: 0,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        hostname: "web".into(),
        log_directory: None,
        netns: Some("/run/netns/a".into()),
        user_namespace: None,
        host_ipc: false,
        pid: PidNamespace::Container,
        shm: None,
        sysctls: BTreeMap::new(),
        user: None,
        group: None,
        groups: Vec::new(),
        privileged: false,
        seccomp: Seccomp::RuntimeDefault,
        program: program(),
        runtime: String::new(),
    }
}

/// The request for a plain sandbox, with its config changed.
fn request(change: impl FnOnce(&mut cri::PodSandboxConfig)) -> v1::ControllerCreateRequest {
    let mut request = create(&plain(), "s", Path::new(PROFILE)).unwrap();
    let options = request.options.as_mut().unwrap();
    let mut config = cri::PodSandboxConfig::decode(&*options.value).unwrap();
    change(&mut config);
    options.value = config.encode_to_vec();
    request
}

fn context(
    change: impl FnOnce(&mut cri::LinuxSandboxSecurityContext),
) -> v1::ControllerCreateRequest {
    request(|config| change(config.linux.as_mut().unwrap().security_context.as_mut().unwrap()))
}

fn field(request: v1::ControllerCreateRequest) -> String {
    decode(request, None).unwrap_err().field
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    type Change = fn(&mut v1::ControllerCreateRequest);
    let requests: [(&str, Change); 6] = [
        ("sandbox_id", |it| it.sandbox_id = "../x".into()),
        ("options", |it| it.options = None),
        ("options.type_url", |it| it.options.as_mut().unwrap().type_url = "x.Y".into()),
        ("options.value", |it| it.options.as_mut().unwrap().value = vec![0xff]),
        ("netns_path", |it| it.netns_path = String::new()),
        ("netns_path", |it| it.netns_path = "relative".into()),
    ];
    for (wrong, change) in requests {
        let mut it = request(|_| {});
        change(&mut it);
        assert_eq!(field(it), wrong);
    }
    type ConfigChange = fn(&mut cri::PodSandboxConfig);
    let configs: [(&str, ConfigChange); 9] = [
        ("options.metadata", |it| it.metadata = None),
        ("options.metadata.name", |it| it.metadata.as_mut().unwrap().name = String::new()),
        ("options.metadata.uid", |it| it.metadata.as_mut().unwrap().uid = "a\nb".into()),
        ("options.hostname", |it| it.hostname = "a b".into()),
        ("options.hostname", |it| it.hostname = "a".repeat(65)),
        ("options.log_directory", |it| it.log_directory = "logs".into()),
        ("options.windows", |it| it.windows = Some(Default::default())),
        ("options.linux.cgroup_parent", |it| {
            it.linux.as_mut().unwrap().cgroup_parent = "/a/../b".into();
        }),
        ("options.linux.sysctls", |it| {
            it.linux.as_mut().unwrap().sysctls = [("vm.swappiness".into(), "1".into())].into();
        }),
    ];
    for (wrong, change) in configs {
        assert_eq!(field(request(change)), wrong);
    }
}

#[test]
fn security_that_cannot_be_is_refused_and_never_left_out() {
    type Change = fn(&mut cri::LinuxSandboxSecurityContext);
    let wrong: [(&str, Change); 10] = [
        ("namespace_options.network", |it| it.namespace_options.as_mut().unwrap().network = 1),
        ("namespace_options.ipc", |it| it.namespace_options.as_mut().unwrap().ipc = 9),
        ("namespace_options.userns_options", |it| {
            it.namespace_options.as_mut().unwrap().userns_options = Some(Default::default());
        }),
        ("run_as_user", |it| it.run_as_user = Some(cri::Int64Value { value: -1 })),
        ("run_as_group", |it| it.run_as_group = Some(cri::Int64Value { value: 1 })),
        ("supplemental_groups", |it| it.supplemental_groups = vec![1 << 40]),
        ("seccomp.localhost_ref", |it| {
            let seccomp = it.seccomp.as_mut().unwrap();
            seccomp.profile_type = ProfileType::Localhost.into();
        }),
        ("seccomp.localhost_ref", |it| {
            it.seccomp = Some(cri::SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: "/not/there".into(),
            });
        }),
        ("seccomp.profile_type", |it| it.seccomp.as_mut().unwrap().profile_type = 7),
        ("selinux_options", |it| {
            it.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
            it.selinux_options =
                Some(cri::SeLinuxOption { level: "s0".into(), ..Default::default() });
        }),
    ];
    for (name, change) in wrong {
        assert_eq!(field(context(change)), of_context(name));
    }
}

#[test]
fn what_containerd_and_isulad_send_is_taken() {
    let mut bare = request(|config| {
        config.hostname = String::new();
        config.linux.as_mut().unwrap().cgroup_parent = String::new();
    });
    bare.sandbox = None;
    bare.options.as_mut().unwrap().type_url = String::new();
    let taken = decode(bare, None).unwrap();
    assert_eq!(taken.hostname, "070707070707");
    assert_eq!(taken.place.cgroup, Path::new("/"));
    let mut named = request(|_| {});
    let runtime = named.sandbox.as_mut().unwrap().runtime.as_mut().unwrap();
    runtime.name = "io.containerd.runc.v2".into();
    assert_eq!(decode(named, None).unwrap().runtime, "");
}

#[test]
fn a_network_namespace_for_a_pod_on_the_hosts_network_is_a_mistake() {
    let host = context(|it| it.namespace_options.as_mut().unwrap().network = 2);
    assert_eq!(field(host), "netns_path");
}

prop_compose! {
    fn path()(parts in prop::collection::vec("[a-zA-Z0-9._-]{1,8}x", 1..4)) -> PathBuf {
        PathBuf::from(format!("/{}", parts.join("/")))
    }
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("\\PC{1,10}", "\\PC{0,10}", 0..4)
}

prop_compose! {
    fn a_sandbox()(
        bytes: [u8; 32],
        (cgroup, netns, log_directory) in (path(), option::of(path()), option::of(path())),
        (name, namespace, uid) in ("[a-z0-9-]{1,20}", "\\PC{1,10}", "[a-f0-9-]{1,36}"),
        (labels, annotations) in (labels(), labels()),
        hostname in "[a-z0-9]{1,20}(\\.[a-z0-9_-]{1,20})?",
        (host_ipc, privileged, attempt) in any::<(bool, bool, u32)>(),
        pid in prop::sample::select(vec![PidNamespace::Container, PidNamespace::Pod, PidNamespace::Host]),
        user in option::of((any::<u32>(), option::of(any::<u32>()))),
        groups: Vec<u32>,
        seccomp in prop_oneof![
            Just(Seccomp::Unconfined),
            Just(Seccomp::RuntimeDefault),
            any::<Vec<u8>>().prop_map(Seccomp::Profile),
        ],
        runtime in prop_oneof![Just(String::new()), Just("/usr/sbin/runc".to_owned())],
        size in 1_u32..100,
    ) -> Sandbox {
        let plain = plain();
        let id = PodId::from_bytes(bytes);
        let sysctl = ("kernel.msgmax".to_owned(), size.to_string());
        Sandbox {
            place: Place { dir: Path::new(SANDBOXES).join(id.as_str()), id, cgroup },
            name, namespace, uid, attempt, labels, annotations, hostname, log_directory, netns,
            host_ipc, pid, privileged, groups, seccomp, runtime,
            sysctls: (!host_ipc).then_some(sysctl).into_iter().collect(),
            user: user.map(|(user, _)| user),
            group: user.and_then(|(_, group)| group),
            ..plain
        }
    }
}

proptest! {
    #[test]
    fn a_sandbox_survives_the_wire(before in a_sandbox()) {
        let request = create(&before, "s", Path::new(PROFILE)).unwrap();
        let bytes = request.encode_to_vec();
        let request = v1::ControllerCreateRequest::decode(&*bytes).unwrap();
        let profile = match &before.seccomp {
            Seccomp::Profile(bytes) => Some(&**bytes),
            _ => None,
        };
        prop_assert_eq!(decode(request, profile).unwrap(), before);
    }

    #[test]
    fn no_request_makes_it_panic(
        sandbox_id in "\\PC{0,70}",
        value: Vec<u8>,
        texts in prop::collection::vec("\\PC{0,20}", 8),
        modes: [i32; 4],
        ids: [i64; 3],
    ) {
        let garbage = v1::ControllerCreateRequest {
            sandbox_id: if value.len() % 2 == 0 { "07".repeat(32) } else { sandbox_id },
            options: Some(Any { type_url: String::new(), value }),
            netns_path: texts[0].clone(),
            ..Default::default()
        };
        let _ = decode(garbage, None);
        let mut odd = request(|config| {
            config.hostname = texts[1].clone();
            config.log_directory = texts[2].clone();
            let linux = config.linux.as_mut().unwrap();
            linux.cgroup_parent = texts[3].clone();
            linux.sysctls = [(texts[4].clone(), texts[5].clone())].into();
            linux.security_context = Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    network: modes[0], pid: modes[1], ipc: modes[2], ..Default::default()
                }),
                run_as_user: Some(cri::Int64Value { value: ids[0] }),
                run_as_group: Some(cri::Int64Value { value: ids[1] }),
                supplemental_groups: vec![ids[2]],
                seccomp: Some(cri::SecurityProfile {
                    profile_type: modes[3], localhost_ref: texts[6].clone(),
                }),
                ..Default::default()
            });
        });
        odd.netns_path = texts[7].clone();
        let _ = decode(odd, None);
    }
}
