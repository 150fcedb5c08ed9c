//! Plans to try things on, and the tests of whole configs.

mod any;
mod golden;
mod runc;

use names::PodId;

use crate::{
    Architecture, CapabilityAsk, Device, DeviceKind, Env, ImageProcess, Mount, Namespace,
    Namespaces, Node, PausePlan, Plan, Pod, PodFiles, Process, Resources, Root, Security, User,
    capabilities_from_mask,
};

/// All but CAP_SYS_RESOURCE.
const BOUNDING: u64 = !(1 << 24);

pub(crate) fn node() -> Node {
    Node {
        architecture: Architecture::X86_64,
        cgroup_v2: true,
        capabilities: capabilities_from_mask(BOUNDING),
        swap_accounting: true,
        hugetlb: true,
        seccomp: true,
        apparmor: true,
        selinux: true,
        recursive_read_only: true,
        oom_score_floor: None,
        devices: vec![device("/dev/kvm", 10, 232, ""), device("/dev/null", 1, 3, "")],
        pids_limit: Some(1000),
    }
}

pub(crate) fn device(path: &str, major: i64, minor: i64, permissions: &str) -> Device {
    Device {
        container_path: path.into(),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o660,
        uid: 0,
        gid: 104,
        permissions: permissions.into(),
    }
}

pub(crate) fn mount(place: &str, source: &str) -> Mount {
    Mount { container_path: place.into(), host_path: source.into(), ..Mount::default() }
}

fn pod() -> Pod {
    Pod {
        id: PodId::from_bytes([0xab; 32]),
        name: "web-0".into(),
        namespace: "shop".into(),
        uid: "8a4e7b1c-0000-4000-8000-000000000001".into(),
        hostname: "web-0".into(),
    }
}

fn joined(kind: &str) -> Namespace {
    Namespace::Join(format!("/run/podbay/pods/p/ns/{kind}").into())
}

pub(crate) fn plan() -> Plan {
    let file = |name: &str| Some(format!("/run/podbay/pods/p/{name}").into());
    Plan {
        pod: pod(),
        name: "app".into(),
        image: "registry.k8s.io/app:1".into(),
        annotations: [("example.com/passed-through".to_owned(), "yes".to_owned())].into(),
        root: Root { path: "rootfs".into(), readonly: false },
        process: process(),
        security: Security {
            capabilities: CapabilityAsk::default(),
            masked_paths: ["/proc/kcore", "/sys/firmware"].map(str::to_owned).into(),
            readonly_paths: vec!["/proc/sys".into()],
            ..Security::default()
        },
        namespaces: Namespaces {
            network: joined("net"),
            ipc: joined("ipc"),
            uts: joined("uts"),
            pid: Namespace::Own,
            user: None,
        },
        pod_files: PodFiles {
            hosts: file("hosts"),
            hostname: file("hostname"),
            resolv_conf: file("resolv.conf"),
            shm: file("shm"),
        },
        mounts: Vec::new(),
        image_volumes: Vec::new(),
        devices: Vec::new(),
        resources: Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory: Some(64 << 20),
            ..Resources::default()
        },
        cgroup: "/kubepods/pod1/c1".into(),
        node: node(),
    }
}

fn process() -> Process {
    Process {
        image: ImageProcess {
            entrypoint: vec!["/app".into()],
            cmd: vec!["--help".into()],
            env: vec!["LANG=C".into()],
            working_dir: "/srv".into(),
        },
        command: Vec::new(),
        args: vec!["--serve".into()],
        env: vec![Env { name: "MODE".into(), value: b"test".into() }],
        working_dir: String::new(),
        tty: false,
        user: User {
            uid: 1000,
            gid: 1000,
            groups: vec![1000, 50000],
            home: Some("/home/someone".into()),
        },
        oom_score_adj: Some(900),
    }
}

pub(crate) fn pause_plan() -> PausePlan {
    PausePlan {
        pod: pod(),
        image: "registry.k8s.io/pause:3.10".into(),
        annotations: Default::default(),
        root: "rootfs".into(),
        args: vec!["/pause".into()],
        env: Vec::new(),
        user: User { uid: 65535, gid: 65535, groups: vec![65535], home: None },
        security: Security::default(),
        namespaces: Namespaces {
            network: joined("net"),
            ipc: Namespace::Own,
            uts: Namespace::Own,
            pid: Namespace::Own,
            user: None,
        },
        shm: Some("/run/podbay/pods/p/shm".into()),
        sysctls: [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into(),
        cgroup: "/kubepods/pod1/p".into(),
        node: node(),
    }
}
