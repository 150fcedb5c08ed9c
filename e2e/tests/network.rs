//! The network of pods: by the built-in bridge, by real CNI plugins, and by plugins that misbehave.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::{
    fs,
    time::{Duration, Instant},
};

use cri_proto::v1;
use e2e::{Cri, Daemon, Options, Plugin, eventually, is_true, real_cni, refused, shell, sleeps};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

/// A port of the host that nobody uses now.
fn free_port() -> i32 {
    e2e::free_port().into()
}

/// What a web server at this address of the host answers.
async fn fetch(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /word HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.ends_with("hello\n").then_some(answer)
}

/// A pod with a web server, at a port of the host too.
async fn web(node: &Daemon, name: &str, host_port: i32) -> String {
    let cri = node.cri();
    let mut config = node.pod(name);
    config.port_mappings =
        vec![v1::PortMapping { container_port: 8080, host_port, ..Default::default() }];
    let pod = cri.run_pod(&config).await.unwrap();
    let serve = "echo hello > /www/word; httpd -f -p 8080 -h /www";
    cri.launch(&pod, &shell("httpd", serve)).await.unwrap();
    pod
}

/// Two pods that reach each other, and the one from the host; and nothing is left of them.
async fn pods_talk(node: &Daemon) {
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let port = free_port();
    let server = web(node, "server", port).await;
    let client = cri.run_pod(&node.pod("client")).await.unwrap();
    let shell_in = cri.launch(&client, &sleeps("c")).await.unwrap();
    let address = cri.address(&server).await.unwrap();
    let line = format!("wget -q -O - http://{address}:8080/word");
    let word = async || cri.shell(&shell_in, &line).await.ok();
    assert_eq!(eventually("one pod reaches the other", word).await, "hello");
    let published = format!("127.0.0.1:{port}");
    eventually("the host reaches the pod", async || fetch(&published).await).await;
    let clash = {
        let mut config = node.pod("clash");
        config.port_mappings =
            vec![v1::PortMapping { container_port: 80, host_port: port, ..Default::default() }];
        cri.run_pod(&config).await
    };
    if let Ok(id) = clash {
        // CNI's portmap takes a port twice, and the first keeps it.
        cri.remove_pod(&id).await.unwrap();
    }
    cri.stop_pod(&server).await.unwrap();
    assert_eq!(fetch(&published).await, None, "the port is closed with its pod");
    cri.remove_pod(&server).await.unwrap();
    cri.remove_pod(&client).await.unwrap();
    node.assert_untouched(&before, "two pods on the network").await;
}

#[tokio::test]
async fn pods_on_the_built_in_bridge_reach_each_other_and_the_host_reaches_them() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    pods_talk(&node).await;
}

#[tokio::test]
async fn pods_on_real_cni_plugins_reach_each_other_and_the_host_reaches_them() {
    let Some(node) = Daemon::start(Options::default().by_cni()).await else { return };
    if real_cni(&node.place) {
        pods_talk(&node).await;
        let ipam = node.place.ipam().join(node.place.cni_bridge());
        let left: Vec<_> = fs::read_dir(ipam).unwrap().flatten().map(|it| it.file_name()).collect();
        let is_lease = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with("10.");
        assert_eq!(left.iter().filter(is_lease).count(), 0, "{left:?}");
    }
}

#[tokio::test]
async fn a_port_of_the_host_belongs_to_one_pod_at_a_time() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let port = free_port();
    let first = web(&node, "first", port).await;
    let before = node.snapshot();
    let mut config = node.pod("second");
    config.port_mappings =
        vec![v1::PortMapping { container_port: 8080, host_port: port, ..Default::default() }];
    let why = refused(cri.run_pod(&config).await, Code::AlreadyExists);
    assert!(why.contains(&port.to_string()) && why.contains(&first), "{why}");
    node.assert_untouched(&before, "a pod whose port was taken").await;
    cri.stop_pod(&first).await.unwrap();
    cri.run_pod(&config).await.expect("a stopped pod has given its port back");
}

#[tokio::test]
async fn pods_go_away_although_their_network_is_configured_no_more() {
    let Some(node) = Daemon::start(Options::default().by_cni()).await else { return };
    if !real_cni(&node.place) {
        return;
    }
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let pod = web(&node, "web", free_port()).await;
    let file = fs::read_dir(node.place.net_d()).unwrap().flatten().next().unwrap().path();
    let text = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    eventually("the network is not ready", async || is_true(!network_ready(&cri).await.0)).await;
    assert!(!network_ready(&cri).await.1.is_empty(), "a reason is given");
    let why = refused(cri.run_pod(&node.pod("next")).await, Code::Unavailable);
    assert!(why.contains(&node.place.net_d().display().to_string()), "{why}");
    assert!(cri.is_ready(&pod).await.unwrap());
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    node.assert_untouched(&before, "a pod whose network was configured no more").await;
    fs::write(&file, text).unwrap();
    eventually("the network is ready again", async || is_true(network_ready(&cri).await.0)).await;
    cri.run_pod(&node.pod("next")).await.unwrap();
}

/// Whether the daemon says that the network is ready, and why not.
async fn network_ready(cri: &Cri) -> (bool, String) {
    let status = cri.runtime().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    let network = conditions.into_iter().find(|it| it.r#type == "NetworkReady").unwrap();
    (network.status, network.message)
}

#[tokio::test]
async fn a_plugin_that_fails_in_whatever_way_is_one_clear_error_and_leaves_nothing() {
    let Some(node) =
        Daemon::start(Options::default().by_cni().set("network.deadline", "\"2s\"")).await
    else {
        return;
    };
    let plugin = Plugin::install(&node.place);
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    let noisy = "dd if=/dev/zero bs=1M count=64 2>/dev/null | tr '\\0' x; exit 1";
    let ways = [
        ("it says no", "refuse 'no address is free'", "no address is free"),
        ("it prints nonsense", "echo nonsense; exit 0", "obedient"),
        ("it prints nothing", "exit 0", "obedient"),
        ("it talks on stderr", "echo because of this >&2; exit 3", "because of this"),
        ("it is killed", "kill -9 $$", "obedient"),
        ("it talks too much", noisy, "obedient"),
        ("it hangs", "sleep 4141 & sleep 4141", "obedient"),
    ];
    for (way, line, part) in ways {
        plugin.when("ADD", line);
        let (begun, dels) = (Instant::now(), plugin.count("DEL"));
        let why = cri.run_pod(&node.pod("poor")).await.expect_err(way);
        assert!(why.message().contains(part), "{way}: {}", why.message());
        assert!(why.message().len() < 8192, "{way}: {} bytes", why.message().len());
        assert!(begun.elapsed() < Duration::from_secs(8), "{way}: {:?}", begun.elapsed());
        assert!(plugin.count("DEL") > dels, "{way}: what an ADD may have made is undone");
        assert!(cri.pods().await.unwrap().is_empty(), "{way}");
        node.assert_untouched(&before, way).await;
    }
    let hung = |it: &e2e::Process| it.line.trim_end() == "sleep 4141" && !it.zombie;
    assert!(!e2e::processes().iter().any(hung), "what a plugin has started goes with it");
    plugin.when("ADD", "true");
    cri.run_pod(&node.pod("poor")).await.expect("a plugin that works again is enough");
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_one_clear_error_and_leaves_nothing() {
    let Some(node) = Daemon::start(Options::default().by_cni()).await else { return };
    let plugin = Plugin::install(&node.place);
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    plugin.configure("absent");
    let why = cri.run_pod(&node.pod("poor")).await.expect_err("there is no such plugin");
    assert!(why.message().contains("absent"), "{}", why.message());
    assert!(cri.pods().await.unwrap().is_empty());
    node.assert_untouched(&before, "a plugin that is not there").await;
    plugin.configure("obedient");
    eventually("the network is ready", async || is_true(network_ready(&cri).await.0)).await;
    cri.run_pod(&node.pod("poor")).await.unwrap();
}

#[tokio::test]
async fn a_pod_whose_network_can_neither_be_made_nor_unmade_is_kept_until_it_can() {
    let Some(node) = Daemon::start(Options::default().by_cni()).await else { return };
    let plugin = Plugin::install(&node.place);
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    plugin.when("ADD", "refuse 'it cannot be made'");
    plugin.when("DEL", "refuse 'it cannot be unmade'");
    let why = cri.run_pod(&node.pod("stuck")).await.expect_err("the plugin refuses");
    assert!(why.message().contains("it cannot be made"), "{}", why.message());
    let pods = cri.pods().await.unwrap();
    assert_eq!(pods.len(), 1, "what holds something of the host is listed");
    assert_eq!(pods[0].state(), v1::PodSandboxState::SandboxNotready);
    let id = &pods[0].id;
    for _ in 0..3 {
        let dels = plugin.count("DEL");
        let why = cri.stop_pod(id).await.expect_err("the plugin refuses");
        assert!(why.message().contains("it cannot be unmade"), "{}", why.message());
        assert!(plugin.count("DEL") > dels, "every Stop tries again");
        cri.remove_pod(id).await.expect_err("the plugin refuses");
    }
    fs::remove_file(node.place.net_d().join("10-obedient.conflist")).unwrap();
    plugin.when("DEL", "true");
    cri.stop_pod(id).await.expect("the network is unmade by its record alone");
    let dels = plugin.count("DEL");
    cri.stop_pod(id).await.unwrap();
    assert_eq!(plugin.count("DEL"), dels, "what is unmade is not unmade again");
    cri.remove_pod(id).await.unwrap();
    node.assert_untouched(&before, "a pod that was stuck").await;
}

#[tokio::test]
async fn a_pod_whose_namespace_is_gone_goes_away_all_the_same() {
    let Some(node) = Daemon::start(Options::default()).await else { return };
    let cri = node.cri();
    let before = node.warm_snapshot().await;
    for spoil in ["unmounted", "removed", "a plain file"] {
        let pod = cri.run_pod(&node.pod("bare")).await.unwrap();
        let pin = node.place.state().join("netns").join(&pod);
        let shown = pin.display().to_string();
        e2e::run("umount", &[&shown]);
        if spoil != "unmounted" {
            fs::remove_file(&pin).unwrap();
        }
        if spoil == "a plain file" {
            fs::write(&pin, "not a namespace").unwrap();
        }
        cri.stop_pod(&pod).await.unwrap_or_else(|why| panic!("{spoil}: {why}"));
        cri.remove_pod(&pod).await.unwrap_or_else(|why| panic!("{spoil}: {why}"));
        node.assert_untouched(&before, spoil).await;
    }
}
