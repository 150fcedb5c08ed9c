//! What our client says to a sandboxer, word for word, and what it makes of one that misbehaves. The
//! other end is a fake, which writes down what it hears.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use std::{fs, path::Path, time::Duration};

use controllers::{
    Container, Controller, PidNamespace, Place, Prepare, Program, Sandbox, Sandboxer,
    SandboxerConfig, Seccomp, Status,
};
use fake::{Conduct, Fake};
use names::{Class, ContainerId, PodId};

const SOON: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

fn config(address: &Path) -> SandboxerConfig {
    SandboxerConfig {
        name: "vm".into(),
        address: address.into(),
        sandboxer: "theirs".into(),
        deadline: SOON,
        start_deadline: SOON,
        grace: SOON,
        prepare: Prepare::ExtensionsTasks,
    }
}

fn hasty(address: &Path) -> Sandboxer {
    Sandboxer::new(SandboxerConfig {
        deadline: SHORT,
        start_deadline: SHORT,
        grace: SHORT,
        ..config(address)
    })
}

/// A pod at a folder.
fn pod(dir: &Path) -> Sandbox {
    Sandbox {
        place: Place {
            id: PodId::from_bytes([0xab; 32]),
            dir: dir.into(),
            cgroup: "/kubepods/pod1".into(),
        },
        name: "web".into(),
        namespace: "default".into(),
        uid: "u-1".into(),
        attempt: 2,
        labels: [("app".to_owned(), "web".to_owned())].into(),
        annotations: [("note".to_owned(), "x".to_owned())].into(),
        hostname: "web".into(),
        log_directory: Some("/var/log/pods/web".into()),
        netns: Some("/run/netns/web".into()),
        user_namespace: None,
        host_ipc: false,
        pid: PidNamespace::Container,
        shm: Some("/not/told".into()),
        sysctls: [("kernel.msgmax".to_owned(), "9".to_owned())].into(),
        user: Some(1000),
        group: Some(1001),
        groups: vec![7, 8],
        privileged: false,
        seccomp: Seccomp::Profile(b"{}".to_vec()),
        program: Program::default(),
        runtime: "kata".into(),
    }
}

fn container(pod: &Sandbox, byte: u8) -> Container {
    let id = ContainerId::from_bytes([byte; 32]);
    let bundle = pod.place.dir.join("containers").join(id.as_str());
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), r#"{"ociVersion":"1.2.0"}"#).unwrap();
    Container { id, bundle }
}

#[tokio::test]
async fn a_whole_life_is_told_as_it_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(&dir.path().join("s.sock"), Conduct::default());
    let sandboxer = Sandboxer::new(config(&dir.path().join("s.sock")));
    let pod = pod(&dir.path().join("pod"));
    fs::create_dir(&pod.place.dir).unwrap();
    let place = &pod.place;
    sandboxer.create(&pod).await.unwrap();
    let started = sandboxer.start(place).await.unwrap();
    assert_eq!(started.address.to_string(), "ttrpc+vsock://3:1024");
    assert_eq!(sandboxer.platform(place).await.unwrap().architecture, "amd64");
    let (one, two) = (container(&pod, 1), container(&pod, 2));
    fs::remove_file(two.bundle.join("config.json")).unwrap();
    sandboxer.prepare(place, &one).await.unwrap();
    let two = container(&pod, 2);
    sandboxer.prepare(place, &two).await.unwrap();
    sandboxer.purge(place, &one.id).await.unwrap();
    sandboxer.update(place, &Default::default()).await.unwrap();
    let metrics = sandboxer.metrics(place).await.unwrap();
    assert!(matches!(metrics, shim_api::Stats::V2(_)));
    assert_eq!(sandboxer.status(place).await.unwrap(), Status::Running);
    sandboxer.stop(place, Duration::from_millis(1500)).await.unwrap();
    assert_eq!(sandboxer.wait(place).await.unwrap().code, 137);
    assert!(matches!(sandboxer.status(place).await.unwrap(), Status::Stopped(_)));
    sandboxer.shutdown(place).await.unwrap();
    assert_eq!(sandboxer.status(place).await.unwrap(), Status::Gone);
    let heard = fake.heard().replace(dir.path().to_str().unwrap(), "DIR");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sandboxer.txt");
    if std::env::var_os("PODBAY_BLESS").is_some() {
        fs::write(golden, &heard).unwrap();
    }
    let written = fs::read_to_string(golden).unwrap_or_default();
    assert_eq!(heard, written, "PODBAY_BLESS=1 writes it anew");
    assert!(!place.dir.join("sandboxer").exists());
}

#[tokio::test]
async fn without_a_dialect_nothing_is_told_of_containers() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(&dir.path().join("s.sock"), Conduct::default());
    let plain = SandboxerConfig { prepare: Prepare::None, ..config(&dir.path().join("s.sock")) };
    let (sandboxer, pod) = (Sandboxer::new(plain), pod(dir.path()));
    let one = container(&pod, 1);
    sandboxer.prepare(&pod.place, &one).await.unwrap();
    sandboxer.purge(&pod.place, &one.id).await.unwrap();
    assert_eq!(fake.heard(), "");
}

#[tokio::test]
async fn after_a_restart_the_list_is_made_of_the_bundles() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(&dir.path().join("s.sock"), Conduct::default());
    let pod = pod(dir.path());
    let (one, two) = (container(&pod, 1), container(&pod, 2));
    let restarted = Sandboxer::new(config(&dir.path().join("s.sock")));
    restarted.prepare(&pod.place, &container(&pod, 3)).await.unwrap();
    let heard = fake.heard();
    assert!(heard.contains(one.id.as_str()) && heard.contains(two.id.as_str()), "{heard}");
}

#[tokio::test]
async fn what_the_sandboxer_would_not_hear_of_is_not_in_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let refusing = Fake::start(&socket, Conduct { refuses: Some("Update"), ..Default::default() });
    let (sandboxer, pod) = (Sandboxer::new(config(&socket)), pod(dir.path()));
    let one = container(&pod, 1);
    let error = sandboxer.prepare(&pod.place, &one).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted);
    fs::remove_dir_all(&one.bundle).unwrap();
    refusing.conduct(Conduct::default());
    sandboxer.prepare(&pod.place, &container(&pod, 2)).await.unwrap();
    let last = refusing.heard().lines().last().unwrap().to_owned();
    assert!(!last.contains(one.id.as_str()), "{last}");
}

/// Every call, by name.
async fn call(sandboxer: &Sandboxer, pod: &Sandbox, call: &str) -> Result<(), controllers::Error> {
    let place = &pod.place;
    match call {
        "Create" => sandboxer.create(pod).await,
        "Start" => sandboxer.start(place).await.map(drop),
        "Platform" => sandboxer.platform(place).await.map(drop),
        "Stop" => sandboxer.stop(place, Duration::ZERO).await,
        "Wait" => sandboxer.wait(place).await.map(drop),
        "Status" => sandboxer.status(place).await.map(drop),
        "Shutdown" => sandboxer.shutdown(place).await,
        "Update" => sandboxer.update(place, &Default::default()).await,
        "Metrics" => sandboxer.metrics(place).await.map(drop),
        other => panic!("{other}"),
    }
}

const CALLS: [&str; 9] =
    ["Create", "Start", "Platform", "Stop", "Wait", "Status", "Shutdown", "Update", "Metrics"];

/// The class of the failure, which comes in time and says who failed at what.
async fn failure(sandboxer: &Sandboxer, pod: &Sandbox, name: &str) -> (Class, String) {
    let failed = tokio::time::timeout(10 * SHORT, call(sandboxer, pod, name)).await;
    let error = failed.expect("it fails in time").expect_err(name);
    let words = names::chain(&error);
    assert!(words.starts_with(&format!("sandboxer \"vm\": {name}: ")), "{words}");
    (error.class(), words)
}

#[tokio::test]
async fn one_that_is_not_there_is_unavailable_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let (sandboxer, pod) = (Sandboxer::new(config(&socket)), pod(dir.path()));
    for refused in [false, true] {
        if refused {
            // What a killed one leaves.
            drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        }
        for name in CALLS.into_iter().filter(|name| !matches!(*name, "Wait" | "Shutdown")) {
            let (class, words) = failure(&sandboxer, &pod, name).await;
            assert_eq!(class, Class::Unavailable, "{words}");
            assert!(words.contains("s.sock"), "{words}");
        }
        // It has not heard of the sandbox: nothing can be left of it.
        sandboxer.shutdown(&pod.place).await.unwrap();
    }
    let (class, words) = failure(&hasty(&socket), &pod, "Wait").await;
    assert_eq!(class, Class::Unavailable, "{words}");
}

#[tokio::test]
async fn a_shutdown_of_what_it_may_have_waits_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let (sandboxer, pod) = (Sandboxer::new(config(&socket)), pod(dir.path()));
    let fake = Fake::start(&socket, Conduct::default());
    sandboxer.create(&pod).await.unwrap();
    fake.die();
    let (class, _) = failure(&sandboxer, &pod, "Shutdown").await;
    assert_eq!(class, Class::Unavailable);
    let _fake = Fake::start(&socket, Conduct::default());
    sandboxer.shutdown(&pod.place).await.unwrap();
}

#[tokio::test]
async fn one_that_hangs_is_given_up_in_time_whatever_it_was_asked() {
    for name in CALLS {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let hangs = if name == "Wait" { "Status" } else { name };
        let conduct = Conduct {
            hangs: Some(hangs),
            refuses: (name == "Wait").then_some("Wait"),
            ..Default::default()
        };
        let _fake = Fake::start(&socket, conduct);
        let (sandboxer, pod) = (hasty(&socket), pod(dir.path()));
        let (class, words) = failure(&sandboxer, &pod, name).await;
        // Of a Wait that was broken off it is not known how it goes on.
        let wanted = if name == "Wait" { Class::Unavailable } else { Class::DeadlineExceeded };
        assert_eq!(class, wanted, "{words}");
    }
}

#[tokio::test]
async fn one_that_hangs_delays_no_other_call() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let fake = Fake::start(&socket, Conduct { hangs: Some("Create"), ..Default::default() });
    let sandboxer = std::sync::Arc::new(Sandboxer::new(config(&socket)));
    let asked = {
        let (sandboxer, pod) = (sandboxer.clone(), pod(dir.path()));
        tokio::spawn(async move { sandboxer.create(&pod).await })
    };
    fake.until_heard("Create").await;
    for name in ["Status", "Platform", "Metrics"] {
        let told = tokio::time::timeout(SOON / 2, call(&sandboxer, &pod(dir.path()), name)).await;
        told.unwrap().unwrap();
    }
    assert!(!asked.is_finished());
    asked.abort();
}

#[tokio::test]
async fn an_address_that_cannot_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let _fake = Fake::start(&socket, Conduct { address: "tcp://1.2.3.4", ..Default::default() });
    let (sandboxer, pod) = (hasty(&socket), pod(dir.path()));
    let (class, words) = failure(&sandboxer, &pod, "Start").await;
    assert_eq!(class, Class::Internal);
    assert!(words.contains("tcp://1.2.3.4"), "{words}");
}

#[tokio::test]
async fn one_that_dies_in_the_middle_of_a_call_is_unavailable() {
    for name in CALLS.into_iter().filter(|name| *name != "Wait") {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s.sock");
        let fake = Fake::start(&socket, Conduct { hangs: Some(name), ..Default::default() });
        let sandboxer = Sandboxer::new(config(&socket));
        let pod = pod(dir.path());
        let dies = async {
            fake.until_heard(name).await;
            fake.die();
        };
        let (failed, ()) = tokio::join!(failure(&sandboxer, &pod, name), dies);
        assert_eq!(failed.0, Class::Unavailable, "{}", failed.1);
    }
}

#[tokio::test]
async fn a_sandbox_that_it_has_forgotten_is_gone_and_its_end_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let _fake = Fake::start(&socket, Conduct { forgets: true, ..Default::default() });
    let (sandboxer, pod) = (hasty(&socket), pod(dir.path()));
    assert_eq!(sandboxer.status(&pod.place).await.unwrap(), Status::Gone);
    assert_eq!(sandboxer.wait(&pod.place).await.unwrap().code, 255);
    sandboxer.stop(&pod.place, Duration::ZERO).await.unwrap();
    sandboxer.purge(&pod.place, &ContainerId::from_bytes([1; 32])).await.unwrap();
    sandboxer.shutdown(&pod.place).await.unwrap();
    for name in ["Start", "Platform", "Update", "Metrics"] {
        assert_eq!(failure(&sandboxer, &pod, name).await.0, Class::NotFound);
    }
}

#[tokio::test]
async fn a_wait_that_it_does_not_serve_is_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let fake = Fake::start(&socket, Conduct { lacks: Some("Wait"), ..Default::default() });
    let (sandboxer, pod) = (Sandboxer::new(config(&socket)), pod(dir.path()));
    assert_eq!(failure(&sandboxer, &pod, "Wait").await.0, Class::Unimplemented);
    assert_eq!(fake.heard().lines().count(), 1);
}

#[tokio::test]
async fn a_wait_goes_on_over_a_restart_and_learns_what_happened_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let first = Fake::start(&socket, Conduct { hangs: Some("Wait"), ..Default::default() });
    let sandboxer = Sandboxer::new(config(&socket));
    let pod = pod(dir.path());
    let restarts = async {
        first.until_heard("Wait").await;
        first.die();
        let alive = Fake::start(&socket, Conduct { hangs: Some("Wait"), ..Default::default() });
        alive.until_heard("Status").await;
        alive.until_heard("Wait").await;
        alive.die();
        let ended = Fake::start(&socket, Conduct { ended: true, ..Default::default() });
        ended.until_heard("Status").await;
        ended
    };
    let life = async { tokio::join!(sandboxer.wait(&pod.place), restarts) };
    let (exit, _ended) = tokio::time::timeout(SOON, life).await.unwrap();
    assert_eq!(exit.unwrap().code, 137);
}
