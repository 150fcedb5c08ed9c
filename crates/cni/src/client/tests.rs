//! Plugins that do what plugins should not: shell scripts that hang, babble, lie and fail. Each
//! writes what it was told into its directory, so that a test sees what was run.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use names::Class;
use tempfile::TempDir;

use super::*;
use crate::{conf::parse_conflist, error::Refusal};

/// Any network namespace will do for plugins that look at none.
const NETNS: &str = "/proc/self/ns/net";

/// A script's first lines: what it was called for goes to `calls`, what it was told to `VERB.NAME`.
const PROLOGUE: &str = r#"#!/bin/sh
cd "${0%/*}"; me="$CNI_COMMAND.${0##*/}"
echo "$me" >> calls; cat > "$me"
"#;

const GOOD: &str = r#"echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}],
"ips":[{"address":"10.0.0.5/8","interface":0}]}'"#;

struct Rig {
    dir: TempDir,
    cni: Cni,
}

impl Rig {
    fn new(plugins: &[(&str, &str)]) -> Rig {
        Rig::with_deadline(plugins, Duration::from_secs(20))
    }

    fn with_deadline(plugins: &[(&str, &str)], deadline: Duration) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["net.d", "bin", "cache"] {
            fs::create_dir(at(name)).unwrap();
        }
        let config = Config {
            conf_dir: at("net.d"),
            bin_dirs: vec![at("empty"), at("bin")],
            cache_dir: at("cache"),
            deadline,
        };
        let rig = Rig { cni: Cni::new(config), dir };
        for (name, body) in plugins {
            rig.install(name, body);
        }
        rig
    }

    fn install(&self, name: &str, body: &str) {
        let path = self.dir.path().join("bin").join(name);
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o755).open(path);
        std::io::Write::write_all(&mut file.unwrap(), [PROLOGUE, body].concat().as_bytes())
            .unwrap();
    }

    fn told(&self, file: &str) -> Value {
        let path = self.dir.path().join("bin").join(file);
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join("bin").join(file)).unwrap_or_default()
    }

    fn calls(&self) -> Vec<String> {
        self.text("calls").lines().map(str::to_owned).collect()
    }

    fn cached(&self) -> usize {
        fs::read_dir(self.dir.path().join("cache/results")).map_or(0, Iterator::count)
    }
}

fn network(version: &str, plugins: Value) -> NetworkList {
    let conf = json!({ "cniVersion": version, "name": "pods", "plugins": plugins });
    parse_conflist(conf.to_string().as_bytes()).unwrap()
}

fn plan_of(version: &str, kinds: &[&str]) -> Attachment {
    let plugins = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    Attachment::plan(&network(version, plugins), "c1", Path::new(NETNS), "eth0").unwrap()
}

fn plan(kinds: &[&str]) -> Attachment {
    plan_of("1.0.0", kinds)
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn eventually(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < deadline, "it did not come to pass within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_plugin_is_told_what_the_one_before_it_made_and_del_goes_backwards() {
    let second = r#"echo '{"ips":[{"address":"10.0.0.6/8"}]}'"#;
    let rig = Rig::new(&[("first", GOOD), ("second", second)]);
    let mut attachment = plan(&["first", "second"]);
    let result = rig.cni.add(&attachment).await.unwrap();
    assert_eq!(result["cniVersion"], "1.0.0", "filled in, as the plugin left it out");
    assert_eq!(rig.cached(), 1);
    let told = rig.told("ADD.first");
    assert_eq!(told, json!({"type": "first", "name": "pods", "cniVersion": "1.0.0"}));
    assert_eq!(rig.told("ADD.second")["prevResult"]["ips"][0]["address"], "10.0.0.5/8");
    attachment.result = Some(result.clone());
    assert_eq!(attachment.pod_ips().unwrap(), [std::net::IpAddr::from([10, 0, 0, 6])]);
    rig.cni.check(&attachment).await.unwrap();
    rig.cni.del(&attachment).await.unwrap();
    rig.cni.del(&attachment).await.unwrap();
    let wanted = ["ADD.first", "ADD.second", "CHECK.first", "CHECK.second"];
    let wanted = [&wanted[..], &["DEL.second", "DEL.first", "DEL.second", "DEL.first"]].concat();
    assert_eq!(rig.calls(), wanted);
    assert_eq!(rig.told("DEL.first")["prevResult"], result);
    assert_eq!(rig.told("CHECK.first")["prevResult"], result);
    assert_eq!(rig.cached(), 0);
}

#[tokio::test]
async fn a_result_is_not_told_to_a_del_before_0_4_0_and_check_is_unknown_there() {
    let rig = Rig::new(&[("old", GOOD)]);
    let mut attachment = plan_of("0.3.1", &["old"]);
    attachment.result = Some(rig.cni.add(&attachment).await.unwrap());
    rig.cni.del(&attachment).await.unwrap();
    assert!(rig.told("DEL.old").get("prevResult").is_none());
    let error = rig.cni.check(&attachment).await.unwrap_err();
    assert_eq!(error.class(), Class::Unimplemented);
}

#[tokio::test]
async fn a_plugin_sees_the_environment_of_cni_and_path_and_nothing_of_ours() {
    let rig = Rig::new(&[("env", "env > seen; echo '{}'")]);
    let attachment = plan(&["env"]).with_args(crate::pod_args("ns", "web", "u1", "c1")).unwrap();
    rig.cni.add(&attachment).await.unwrap();
    assert!(std::env::var_os("HOME").is_some() || std::env::var_os("CARGO").is_some());
    let seen = rig.text("seen");
    // A shell sets the last three itself.
    let names = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let mut names: Vec<_> = seen.lines().map(names).collect();
    names.retain(|name| !matches!(&**name, "PWD" | "OLDPWD" | "_" | "SHLVL"));
    names.sort();
    let wanted = [
        "CNI_ARGS",
        "CNI_COMMAND",
        "CNI_CONTAINERID",
        "CNI_IFNAME",
        "CNI_NETNS",
        "CNI_PATH",
        "PATH",
    ];
    assert_eq!(names, wanted, "{seen}");
    let args = "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;\
                K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1";
    assert!(seen.lines().any(|line| line == args), "{seen}");
    assert!(seen.contains(&format!("CNI_NETNS={NETNS}\n")), "{seen}");
}

#[tokio::test]
async fn only_declared_capabilities_are_told() {
    let rig = Rig::new(&[("deaf", "echo '{}'"), ("keen", "echo '{}'")]);
    let plugins = json!([
        {"type": "deaf", "capabilities": {"mac": false}},
        {"type": "keen", "capabilities": {"mac": true, "portMappings": true}},
    ]);
    let attachment =
        Attachment::plan(&network("1.0.0", plugins), "c1", Path::new(NETNS), "eth0").unwrap();
    let attachment =
        attachment.with_capability(crate::mac("02::1")).with_capability(crate::ips(&[]));
    rig.cni.add(&attachment).await.unwrap();
    rig.cni.del(&attachment).await.unwrap();
    for verb in ["ADD", "DEL"] {
        assert!(rig.told(&format!("{verb}.deaf")).get("runtimeConfig").is_none());
        let told = rig.told(&format!("{verb}.keen"));
        assert_eq!(told["runtimeConfig"], json!({"mac": "02::1"}));
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_at_the_deadline_with_its_children() {
    let hang = "echo waiting >&2; sleep 600 & echo $! > child; echo $$ > self; wait";
    let rig = Rig::with_deadline(&[("hang", hang)], Duration::from_millis(1500));
    let begun = Instant::now();
    let error = rig.cni.add(&plan(&["hang"])).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(error.class(), Class::DeadlineExceeded);
    assert!(!error.made_nothing());
    let text = error.to_string();
    assert!(text.contains("plugin \"hang\"") && text.contains("1.5s"), "{text}");
    assert!(text.contains("waiting"), "{text}");
    let (child, own) = (rig.text("child"), rig.text("self"));
    assert!(!child.is_empty() && !is_alive(&own));
    eventually(|| !is_alive(&child)).await;
}

#[tokio::test]
async fn one_deadline_holds_for_all_plugins_together() {
    let slow = r#"sleep 0.4; echo '{}'"#;
    let rig =
        Rig::with_deadline(&[("a", slow), ("b", slow), ("c", slow)], Duration::from_millis(700));
    let error = rig.cni.add(&plan(&["a", "b", "c"])).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded);
    assert!(!rig.calls().contains(&"ADD.c".to_owned()), "{:?}", rig.calls());
}

#[tokio::test]
async fn a_plugin_whose_caller_no_longer_waits_is_killed_too() {
    let rig = Rig::new(&[("hang", "sleep 600 & echo $! > child; echo $$ > self; wait")]);
    let attachment = plan(&["hang"]);
    tokio::select! {
        _ = rig.cni.add(&attachment) => panic!("it hangs"),
        () = eventually(|| rig.text("self").ends_with('\n')) => {}
    }
    eventually(|| !is_alive(&rig.text("child")) && !is_alive(&rig.text("self"))).await;
}

#[tokio::test]
async fn a_plugin_that_prints_without_end_is_killed_at_once() {
    let rig = Rig::new(&[("flood", "echo $$ > self; yes 0123456789012345678901234567890")]);
    let begun = Instant::now();
    let error = rig.cni.add(&plan(&["flood"])).await.unwrap_err();
    assert!(matches!(error, Error::TooMuchOutput { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "not at the deadline");
    assert!(!is_alive(&rig.text("self")));
}

#[tokio::test]
async fn of_stderr_the_last_4_kib_are_quoted() {
    let body = "yes noise | head -c 1000000 >&2; echo the cause >&2; exit 3";
    let rig = Rig::new(&[("loud", body)]);
    let text = rig.cni.add(&plan(&["loud"])).await.unwrap_err().to_string();
    assert!(text.contains("exit status: 3") && text.contains("the cause"), "{text}");
    assert!(text.len() < 8 * 1024, "{}", text.len());
}

#[tokio::test]
async fn garbage_nothing_and_an_error_at_a_good_end_are_no_results() {
    for (body, cause) in [
        ("echo fine; echo odd >&2", "it printed something else than a result"),
        ("exit 0", "it printed nothing"),
        ("echo 7", "it printed JSON that is not an object, which is no result"),
        (
            r#"echo '{"code": 7, "msg": "x"}'"#,
            "it printed an error, yet ended well, which is no result",
        ),
        (r#"echo '{"ips": [{"address": "10.0.0.300/8"}]}'"#, "\"10.0.0.300/8\" is not an address"),
    ] {
        let rig = Rig::new(&[("odd", body)]);
        let error = rig.cni.add(&plan(&["odd"])).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with(cause), "{body}: {source}");
        let quoted = error.to_string().contains("on stderr: \"odd\"");
        assert_eq!(quoted, body.contains(">&2"), "{error}");
        assert_eq!(rig.cached(), 0);
        rig.cni.del(&plan(&["odd"])).await.unwrap();
    }
}

#[tokio::test]
async fn an_error_object_is_shown_and_its_code_says_what_to_do() {
    for (code, class) in [
        (1, Class::FailedPrecondition),
        (7, Class::FailedPrecondition),
        (11, Class::Unavailable),
        (100, Class::Internal),
    ] {
        let body = format!(
            r#"echo '{{"cniVersion":"1.0.0","code":{code},"msg":"no","details":"why"}}'; exit 1"#
        );
        let rig = Rig::new(&[("no", &body)]);
        let error = rig.cni.add(&plan(&["no"])).await.unwrap_err();
        assert_eq!(error.class(), class);
        assert!(error.to_string().contains(&format!("no (code {code}): why")), "{error}");
    }
}

#[tokio::test]
async fn a_plugin_that_kills_itself_says_by_which_signal() {
    let rig = Rig::new(&[("suicide", "echo half >&2; kill -9 $$")]);
    let error = rig.cni.add(&plan(&["suicide"])).await.unwrap_err();
    assert!(error.to_string().contains("signal: 9"), "{error}");
    assert!(matches!(error, Error::Failed { refusal: Refusal::Printed(_), .. }));
}

#[tokio::test]
async fn a_missing_plugin_is_found_out_before_any_is_run_and_does_not_block_the_undo() {
    let rig = Rig::new(&[("there", GOOD)]);
    let mut attachment = plan(&["there", "absent"]);
    let error = rig.cni.add(&attachment).await.unwrap_err();
    assert!(error.made_nothing());
    assert_eq!(error.class(), Class::FailedPrecondition);
    let text = error.to_string();
    assert!(
        text.contains("\"absent\"") && text.contains("/empty") && text.contains("/bin"),
        "{text}"
    );
    assert_eq!(rig.calls(), [""; 0]);
    rig.cni.del(&attachment).await.unwrap();
    assert_eq!(rig.calls(), ["DEL.there"]);
    attachment.result = Some(json!({}));
    let error = rig.cni.del(&attachment).await.unwrap_err();
    assert!(
        matches!(error, Error::MissingPlugin { .. }),
        "what was made needs its plugin: {error}"
    );
}

#[tokio::test]
async fn a_program_that_cannot_be_run_says_why() {
    let rig = Rig::new(&[]);
    fs::write(rig.dir.path().join("bin/text"), "no program").unwrap();
    let error = rig.cni.add(&plan(&["text"])).await.unwrap_err();
    assert!(matches!(error, Error::Unrunnable { .. }), "{error}");
    assert!(error.to_string().contains("bin/text cannot be run"), "{error}");
}

#[tokio::test]
async fn an_add_without_a_namespace_runs_nothing() {
    let rig = Rig::new(&[("p", GOOD)]);
    let network = network("1.0.0", json!([{ "type": "p" }]));
    let empty = rig.dir.path().join("unpinned");
    fs::write(&empty, "").unwrap();
    let attachment = Attachment::plan(&network, "c1", &empty, "eth0").unwrap();
    let error = rig.cni.add(&attachment).await.unwrap_err();
    assert!(error.made_nothing() && error.to_string().contains("unpinned"), "{error}");
    assert_eq!(rig.calls(), [""; 0]);
}

#[tokio::test]
async fn a_del_without_a_namespace_is_told_of_none() {
    let rig = Rig::new(&[("p", "echo \"netns=$CNI_NETNS\" >> netns")]);
    let network = network("1.0.0", json!([{ "type": "p" }]));
    let place = rig.dir.path().join("unpinned");
    let attachment = Attachment::plan(&network, "c1", &place, "eth0").unwrap();
    rig.cni.del(&attachment).await.unwrap();
    fs::write(&place, "").unwrap();
    rig.cni.del(&attachment).await.unwrap();
    rig.cni.del(&plan(&["p"])).await.unwrap();
    assert_eq!(rig.text("netns"), format!("netns=\nnetns=\nnetns={NETNS}\n"));
}

#[tokio::test]
async fn a_failure_of_the_second_plugin_stops_there_and_is_undone_through_all() {
    let fail = r#"[ $CNI_COMMAND = DEL ] && exit 0; echo '{"code":100,"msg":"full"}'; exit 1"#;
    let rig = Rig::new(&[("first", GOOD), ("second", fail), ("third", GOOD)]);
    let attachment = plan(&["first", "second", "third"]);
    let error = rig.cni.add(&attachment).await.unwrap_err();
    assert!(error.to_string().contains("plugin \"second\"") && !error.made_nothing(), "{error}");
    rig.cni.del(&attachment).await.unwrap();
    let wanted = ["ADD.first", "ADD.second", "DEL.third", "DEL.second", "DEL.first"];
    assert_eq!(rig.calls(), wanted);
    assert!(rig.told("DEL.first").get("prevResult").is_none());
}

#[tokio::test]
async fn a_del_that_failed_can_be_tried_again() {
    let rig = Rig::new(&[("first", GOOD), ("second", "echo busy >&2; exit 1")]);
    let attachment = plan(&["first", "second"]);
    let error = rig.cni.del(&attachment).await.unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    assert_eq!(rig.calls(), ["DEL.second"]);
    rig.install("second", "exit 0");
    rig.cni.del(&attachment).await.unwrap();
    assert_eq!(rig.calls(), ["DEL.second", "DEL.second", "DEL.first"]);
}

#[tokio::test]
async fn a_plugin_that_reads_nothing_of_a_long_conf_does_no_harm() {
    let rig = Rig::new(&[]);
    let path = rig.dir.path().join("bin/deaf");
    let mut file = fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o755).open(path);
    std::io::Write::write_all(&mut file.unwrap(), b"#!/bin/sh\necho '{}'\n").unwrap();
    let plugins = json!([{ "type": "deaf", "padding": "x".repeat(300_000) }]);
    let network = network("1.0.0", plugins);
    let attachment = Attachment::plan(&network, "c1", Path::new(NETNS), "eth0").unwrap();
    rig.cni.add(&attachment).await.unwrap();
}

#[tokio::test]
async fn a_result_file_that_cannot_be_written_is_no_reason_to_fail() {
    let rig = Rig::new(&[("p", GOOD)]);
    fs::write(rig.dir.path().join("cache/results"), "in the way").unwrap();
    rig.cni.add(&plan(&["p"])).await.unwrap();
    rig.cni.del(&plan(&["p"])).await.unwrap();
}

#[tokio::test]
async fn check_is_left_out_where_the_conf_says_so_and_needs_an_add() {
    let rig = Rig::new(&[("p", "exit 1")]);
    let conf = r#"{"cniVersion":"1.0.0","name":"n","disableCheck":true,"plugins":[{"type":"p"}]}"#;
    let network = parse_conflist(conf.as_bytes()).unwrap();
    let attachment = Attachment::plan(&network, "c1", Path::new(NETNS), "eth0").unwrap();
    rig.cni.check(&attachment).await.unwrap();
    assert_eq!(rig.calls(), [""; 0]);
    let error = rig.cni.check(&plan(&["p"])).await.unwrap_err();
    assert!(matches!(error, Error::NotAttached { .. }), "{error}");
}

#[tokio::test]
async fn status_tells_why_pods_cannot_be_attached() {
    let no = r#"[ -e ready ] && exit 0; echo '{"code":50,"msg":"not yet"}'; exit 1"#;
    let rig = Rig::new(&[]);
    let conf = rig.dir.path().join("net.d/10-pods.conflist");
    let status = rig.cni.status().await;
    assert!(!status.is_ready() && status.network.is_none());
    assert!(status.trouble.unwrap().contains("net.d: it holds no .conflist"));
    fs::write(&conf, "{").unwrap();
    let status = rig.cni.status().await;
    assert_eq!(status.skipped.len(), 1);
    assert!(status.trouble.unwrap().contains("10-pods.conflist: it is not JSON"));
    fs::write(&conf, network("1.1.0", json!([{ "type": "cloud" }])).text()).unwrap();
    let status = rig.cni.status().await;
    assert_eq!(status.network.as_deref(), Some("pods"));
    assert!(status.trouble.unwrap().contains("no such program"));
    rig.install("cloud", no);
    assert!(rig.cni.status().await.trouble.unwrap().contains("not yet (code 50)"));
    rig.install("ready", "");
    assert!(rig.cni.status().await.is_ready());
    assert_eq!(rig.told("STATUS.cloud")["cniVersion"], "1.1.0");
    fs::write(&conf, network("1.0.0", json!([{ "type": "cloud" }])).text()).unwrap();
    assert!(rig.cni.status().await.is_ready());
    assert_eq!(rig.calls().len(), 2, "STATUS is not asked before 1.1");
}

#[tokio::test]
async fn gc_tells_every_plugin_which_attachments_are_alive() {
    let rig = Rig::new(&[("bad", "exit 1"), ("good", "exit 0")]);
    let network = network("1.1.0", json!([{ "type": "bad" }, { "type": "good" }]));
    let at = |id| Attachment::plan(&network, id, Path::new(NETNS), "eth0").unwrap();
    let elsewhere = parse_conflist(br#"{"name":"other","plugins":[{"type":"x"}]}"#).unwrap();
    let elsewhere = Attachment::plan(&elsewhere, "c3", Path::new(NETNS), "eth0").unwrap();
    let error = rig.cni.gc(&network, &[at("c1"), elsewhere, at("c2")]).await.unwrap_err();
    assert!(error.to_string().contains("CNI GC, plugin \"bad\""), "{error}");
    let alive = json!([
        {"containerID": "c1", "ifname": "eth0"},
        {"containerID": "c2", "ifname": "eth0"},
    ]);
    assert_eq!(rig.told("GC.good")["cni.dev/valid-attachments"], alive);
    assert_eq!(rig.calls(), ["GC.bad", "GC.good"]);
    let quiet = br#"{"cniVersion":"1.1.0","name":"n","disableGC":true,"plugins":[{"type":"bad"}]}"#;
    rig.cni.gc(&parse_conflist(quiet).unwrap(), &[]).await.unwrap();
    rig.cni.gc(plan(&["bad"]).network(), &[]).await.unwrap();
    assert_eq!(rig.calls().len(), 2);
}

#[tokio::test]
async fn a_network_that_is_not_defined_is_named() {
    let rig = Rig::new(&[]);
    let error = rig.cni.named("storage").unwrap_err();
    assert!(error.to_string().contains("\"storage\""), "{error}");
    assert_eq!(error.class(), Class::InvalidArgument);
}
