//! With the plugins that everybody has: bridge, host-local, portmap. Each test is a host of its own:
//! a mount and a network namespace that end with the test, so that this machine's network is left
//! alone. Needs root and the plugins in `/usr/lib/cni` (Debian: containernetworking-plugins).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU16,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use cni::{Attachment, Cni, Config, Error, PortMapping, Protocol};
use names::Class;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};
use serde_json::{Value, json};
use sys::netns;

const PLUGINS: &str = "/usr/lib/cni";

/// A host with a conf directory, and a pod's namespace pinned on it.
struct Host {
    dir: PathBuf,
    cni: Cni,
}

/// Runs `test` on a host of its own, or says why not.
fn on_a_host(test: impl AsyncFnOnce(Host) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: namespaces are made by root only");
        return;
    }
    if !Path::new(PLUGINS).join("bridge").exists() {
        eprintln!("skipped: there is no bridge plugin in {PLUGINS}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = || {
        own_mounts(dir.path());
        let host = dir.path().join("host");
        netns::make(&host, &[]).unwrap();
        netns::within(&host, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(test(Host::new(dir.path())));
        })
        .unwrap();
    };
    let ended = thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
}

/// What this thread mounts from now on is seen by nobody else, and goes with it.
fn own_mounts(dir: &Path) {
    // The unsafe one is for descriptor tables, which are left alone.
    #[allow(deprecated)]
    rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", dir, "tmpfs", MountFlags::empty(), None).unwrap();
    // Plugins keep state of their own below /run and /var/lib/cni.
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
}

impl Host {
    fn new(dir: &Path) -> Host {
        let config = Config {
            conf_dir: dir.join("net.d"),
            bin_dirs: vec![PLUGINS.into()],
            cache_dir: dir.join("cache"),
            deadline: Duration::from_secs(60),
        };
        fs::create_dir(&config.conf_dir).unwrap();
        Host { dir: dir.to_owned(), cni: Cni::new(config) }
    }

    fn define(&self, version: &str, ranges: Value) {
        let conf = json!({
            "cniVersion": version, "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": true,
                    "ipam": {
                        "type": "host-local", "dataDir": self.dir.join("ipam"), "ranges": ranges,
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        fs::write(self.dir.join("net.d/10-pods.conflist"), conf.to_string()).unwrap();
    }

    fn define_v4(&self) {
        self.define("1.0.0", json!([[{"subnet": "10.77.0.0/24"}]]));
    }

    fn replace_second(&self, plugin: Value) {
        let file = self.dir.join("net.d/10-pods.conflist");
        let mut conf: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        conf["plugins"][1] = plugin;
        fs::write(&file, conf.to_string()).unwrap();
    }

    /// Makes a pod's namespace and plans to attach it to the default network.
    fn plan(&self, id: &str) -> Attachment {
        let place = self.dir.join("netns").join(id);
        netns::make(&place, &[]).unwrap();
        let network = self.cni.default().unwrap();
        let plan = Attachment::plan(&network, id, &place, "eth0").unwrap();
        plan.with_args(cni::pod_args("ns", id, "u1", id)).unwrap()
    }

    async fn attach(&self, mut attachment: Attachment) -> Attachment {
        attachment.result = Some(self.cni.add(&attachment).await.unwrap());
        attachment
    }

    /// The addresses that host-local has given away.
    fn leases(&self) -> Vec<String> {
        let files = fs::read_dir(self.dir.join("ipam/pods")).into_iter().flatten();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<_> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        all.sort();
        all
    }

    fn result_files(&self) -> usize {
        fs::read_dir(self.dir.join("cache/results")).map_or(0, Iterator::count)
    }
}

fn links() -> String {
    fs::read_to_string("/proc/thread-self/net/dev").unwrap()
}

/// Starts to serve `words` to one caller, in the pod.
fn serve(attachment: &Attachment, at: SocketAddr, words: &'static [u8]) -> thread::JoinHandle<()> {
    let server = netns::within(attachment.netns(), || TcpListener::bind(at)).unwrap().unwrap();
    thread::spawn(move || server.accept().unwrap().0.write_all(words).unwrap())
}

fn ask(at: SocketAddr) -> std::io::Result<String> {
    let mut heard = String::new();
    TcpStream::connect_timeout(&at, Duration::from_secs(5))?.read_to_string(&mut heard)?;
    Ok(heard)
}

#[test]
fn a_pod_gets_an_address_that_answers_and_gives_it_back() {
    on_a_host(async |host| {
        host.define_v4();
        let attachment = host.attach(host.plan("c1")).await;
        let ip = attachment.pod_ips().unwrap()[0];
        assert_eq!(host.leases(), [ip.to_string()]);
        assert_eq!(host.result_files(), 1);
        let server = serve(&attachment, (ip, 80).into(), b"hello");
        assert_eq!(ask((ip, 80).into()).unwrap(), "hello");
        server.join().unwrap();
        assert!(netns::within(attachment.netns(), links).unwrap().contains("eth0:"));
        assert!(links().contains("veth"));
        host.cni.check(&attachment).await.unwrap();
        host.cni.del(&attachment).await.unwrap();
        assert_eq!(host.leases(), [""; 0]);
        assert_eq!(host.result_files(), 0);
        assert!(!netns::within(attachment.netns(), links).unwrap().contains("eth0:"));
        assert!(!links().contains("veth"));
        host.cni.del(&attachment).await.unwrap();
    });
}

#[test]
fn a_pod_on_a_dual_stack_network_gets_both_families_in_the_order_of_the_conf() {
    on_a_host(async |host| {
        host.define("1.0.0", json!([[{"subnet": "fd00:77::/64"}], [{"subnet": "10.77.0.0/24"}]]));
        let attachment = host.attach(host.plan("c1")).await;
        let ips = attachment.pod_ips().unwrap();
        assert_eq!(ips.iter().map(IpAddr::is_ipv6).collect::<Vec<_>>(), [true, false], "{ips:?}");
        let table = || fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let table = netns::within(attachment.netns(), table).unwrap();
        let on_eth0 = |line: &str| line.starts_with("fd0000770000") && line.ends_with("eth0");
        assert!(table.lines().any(on_eth0), "{table}");
        let server = serve(&attachment, (ips[1], 80).into(), b"four");
        assert_eq!(ask((ips[1], 80).into()).unwrap(), "four");
        server.join().unwrap();
        host.cni.del(&attachment).await.unwrap();
        assert_eq!(host.leases(), [""; 0]);
    });
}

#[test]
fn every_version_that_the_plugins_speak_works_and_a_later_one_says_so() {
    on_a_host(async |host| {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            host.define(version, json!([[{"subnet": "10.77.0.0/24"}]]));
            let attachment = host.attach(host.plan(version)).await;
            assert_eq!(attachment.result.as_ref().unwrap()["cniVersion"], version);
            attachment.pod_ips().unwrap();
            host.cni.del(&attachment).await.unwrap();
            assert_eq!(host.leases(), [""; 0], "{version}");
        }
        host.define("1.1.0", json!([[{"subnet": "10.77.0.0/24"}]]));
        let plan = host.plan("later");
        match host.cni.add(&plan).await {
            Ok(_) => host.cni.del(&plan).await.unwrap(),
            Err(e) => assert_eq!(e.class(), Class::FailedPrecondition, "{e}"),
        }
    });
}

#[test]
fn an_address_is_freed_when_the_namespace_is_gone_or_only_its_empty_file_is_left() {
    on_a_host(async |host| {
        host.define_v4();
        for left in [false, true] {
            let attachment = host.attach(host.plan("c1")).await;
            assert_eq!(host.leases().len(), 1);
            netns::unmake(attachment.netns()).unwrap();
            if left {
                fs::write(attachment.netns(), "").unwrap();
            }
            host.cni.del(&attachment).await.unwrap();
            assert_eq!(host.leases(), [""; 0], "an empty file left: {left}");
            netns::unmake(attachment.netns()).unwrap();
        }
    });
}

#[test]
fn a_pod_is_detached_from_its_record_when_the_conf_is_gone() {
    on_a_host(async |host| {
        host.define_v4();
        let attachment = host.attach(host.plan("c1")).await;
        let record = serde_json::to_vec(&attachment).unwrap();
        fs::remove_file(host.dir.join("net.d/10-pods.conflist")).unwrap();
        let status = host.cni.status().await;
        assert!(!status.is_ready());
        let attachment: Attachment = serde_json::from_slice(&record).unwrap();
        host.cni.del(&attachment).await.unwrap();
        assert_eq!(host.leases(), [""; 0]);
        host.define_v4();
        assert!(host.cni.status().await.is_ready());
    });
}

#[test]
fn an_add_that_fails_in_the_second_plugin_leaves_nothing_after_del() {
    on_a_host(async |host| {
        host.define_v4();
        host.replace_second(json!({"type": "tuning", "sysctl": {"net.ipv4.no_such_thing": "1"}}));
        let attachment = host.plan("c1");
        let error = host.cni.add(&attachment).await.unwrap_err();
        assert!(error.to_string().contains("plugin \"tuning\""), "{error}");
        assert_eq!(host.leases().len(), 1, "the bridge had been made by then");
        host.cni.del(&attachment).await.unwrap();
        assert_eq!(host.leases(), [""; 0]);
        assert!(!links().contains("veth"));
    });
}

#[test]
fn a_range_that_is_used_up_is_an_error_with_the_plugins_words() {
    on_a_host(async |host| {
        let one = json!([[{
            "subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9",
        }]]);
        host.define("1.0.0", one);
        let first = host.attach(host.plan("c1")).await;
        let second = host.plan("c2");
        let error = host.cni.add(&second).await.unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
        assert!(error.to_string().contains("no IP addresses available"), "{error}");
        host.cni.del(&second).await.unwrap();
        assert_eq!(host.leases(), ["10.77.0.9"], "the other pod keeps its address");
        host.cni.del(&first).await.unwrap();
        host.attach(second).await;
    });
}

#[test]
fn a_host_port_leads_to_the_pod_until_it_is_detached() {
    on_a_host(async |host| {
        if !["/usr/sbin/iptables", "/sbin/iptables"].iter().any(|at| Path::new(at).exists()) {
            eprintln!("skipped: the portmap plugin needs iptables");
            return;
        }
        host.define_v4();
        let port = |number| NonZeroU16::new(number).unwrap();
        let port = PortMapping {
            host_port: port(8080),
            container_port: port(80),
            protocol: Protocol::Tcp,
            host_ip: None,
        };
        let plan = host.plan("c1").with_capability(cni::port_mappings(&[port]));
        let attachment = host.attach(plan).await;
        let server = serve(&attachment, "0.0.0.0:80".parse().unwrap(), b"mapped");
        let outside = SocketAddr::from(([10, 77, 0, 1], 8080));
        assert_eq!(ask(outside).unwrap(), "mapped");
        server.join().unwrap();
        host.cni.del(&attachment).await.unwrap();
        ask(outside).unwrap_err();
    });
}

#[test]
fn a_second_network_gives_a_second_interface() {
    on_a_host(async |host| {
        host.define_v4();
        let flat = json!({
            "cniVersion": "1.0.0", "name": "storage", "type": "bridge", "bridge": "stor0",
            "ipam": {
                "type": "host-local", "dataDir": host.dir.join("ipam"), "subnet": "10.78.0.0/24",
            },
        });
        fs::write(host.dir.join("net.d/20-storage.conf"), flat.to_string()).unwrap();
        let first = host.attach(host.plan("c1")).await;
        let network = host.cni.named("storage").unwrap();
        let second = Attachment::plan(&network, "c1", first.netns(), "net1").unwrap();
        let second = host.attach(second).await;
        assert!(second.pod_ips().unwrap()[0].to_string().starts_with("10.78.0."));
        let seen = netns::within(first.netns(), links).unwrap();
        assert!(seen.contains("eth0:") && seen.contains("net1:"), "{seen}");
        host.cni.del(&second).await.unwrap();
        host.cni.del(&first).await.unwrap();
        let seen = netns::within(first.netns(), links).unwrap();
        assert!(!seen.contains("eth0:") && !seen.contains("net1:"), "{seen}");
    });
}

#[test]
fn a_pod_that_asks_for_a_bandwidth_gets_a_shaped_interface() {
    on_a_host(async |host| {
        host.define_v4();
        host.replace_second(json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}));
        let asked =
            BTreeMap::from([("kubernetes.io/ingress-bandwidth".to_owned(), "10M".to_owned())]);
        let wanted = cni::bandwidth(&asked).unwrap().unwrap();
        let attachment = host.attach(host.plan("c1").with_capability(wanted)).await;
        match Command::new("tc").args(["qdisc", "show"]).output() {
            Ok(shown) => {
                let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
                assert!(shown.contains("tbf") && shown.contains("rate 10Mbit"), "{shown}");
            }
            Err(e) => eprintln!("skipped in part: there is no tc to look with: {e}"),
        }
        host.cni.del(&attachment).await.unwrap();
        assert_eq!(host.leases(), [""; 0]);
    });
}
