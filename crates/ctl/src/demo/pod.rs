//! The demo's image, pod and container, made over the same calls that a kubelet makes.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cri_proto::admin::{File, MakeImageRequest};
use cri_proto::v1;

use crate::error::{DemoError, Error};
use crate::link::{CHANGE, LOOK, Link, answer, within};
use crate::log::{Reader, shown};
use crate::verb::{Watch, exec_sync};
use crate::words::{size, took};

use super::busybox::Busybox;
use super::place::Place;

/// Never resolvable, so that it can be mistaken for no other.
pub const IMAGE: &str = "podbay.invalid/demo:latest";

const NAME: &str = "hello";

/// What of busybox has a name of its own in the image.
const APPLETS: [&str; 22] = [
    "sh", "cat", "date", "df", "echo", "env", "free", "grep", "head", "hostname", "id", "ip", "ls",
    "mount", "ping", "ps", "sleep", "tail", "top", "true", "uname", "wget",
];

/// A line each second, until it is told to end. `wait` can be interrupted, where `sleep` cannot.
const SCRIPT: &str = "trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); \
                      echo \"hello, this is line $n\"; sleep 1 & wait $!; done";

const EXEC: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(15);

/// A pod that is up.
pub struct Sandbox {
    pub id: String,
    pub address: String,
    config: v1::PodSandboxConfig,
}

/// Has an image made of one program and many names for it; gives its id.
pub async fn make_image(link: &Link, busybox: Busybox) -> Result<String, Error> {
    let file = |path: &str, content, link: &str| File {
        path: path.to_owned(),
        mode: 0o755,
        content,
        link: link.to_owned(),
    };
    let mut files = vec![file("/bin/busybox", busybox.content, "")];
    let names = APPLETS.map(|name| file(&format!("/bin/{name}"), Vec::new(), "/bin/busybox"));
    files.extend(names);
    files
        .push(File { mode: 0o644, ..file("/etc/passwd", b"root:x:0:0::/:/bin/sh\n".to_vec(), "") });
    let request = MakeImageRequest {
        reference: IMAGE.to_owned(),
        files,
        cmd: vec!["sh".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        ..Default::default()
    };
    let made = link.admin().make_image(within(CHANGE, request)).await;
    Ok(answer("MakeImage", made)?.image_id)
}

fn logs(place: &Place) -> PathBuf {
    place.path().join("logs")
}

/// Where the container's log will be.
pub fn log(place: &Place) -> PathBuf {
    logs(place).join("0.log")
}

/// Runs the sandbox, and asks for its address.
pub async fn run(link: &Link, place: &Place) -> Result<Sandbox, Error> {
    let logs = logs(place);
    DirBuilder::new().create(&logs).map_err(|source| Error::File {
        doing: "making",
        path: logs.clone(),
        source,
    })?;
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: NAME.to_owned(),
            uid: "demo".to_owned(),
            namespace: "demo".to_owned(),
            attempt: 0,
        }),
        hostname: NAME.to_owned(),
        log_directory: logs.to_string_lossy().into_owned(),
        linux: Some(v1::LinuxPodSandboxConfig::default()),
        ..Default::default()
    };
    let request =
        v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let ran = link.runtime().run_pod_sandbox(within(CHANGE, request)).await;
    let id = answer("RunPodSandbox", ran)?.pod_sandbox_id;
    let address = address(link, &id).await?;
    Ok(Sandbox { id, address, config })
}

async fn address(link: &Link, id: &str) -> Result<String, Error> {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let status = link.runtime().pod_sandbox_status(within(LOOK, request)).await;
    let network = answer("PodSandboxStatus", status)?.status.and_then(|status| status.network);
    let missing = Error::Odd { what: "PodSandboxStatus", missing: "an address" };
    network.map(|network| network.ip).filter(|ip| !ip.is_empty()).ok_or(missing)
}

/// Makes the container and starts it; gives its id.
pub async fn start(link: &Link, sandbox: &Sandbox, image: String) -> Result<String, Error> {
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: NAME.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec {
            image,
            user_specified_image: IMAGE.to_owned(),
            ..Default::default()
        }),
        command: ["sh", "-c", SCRIPT].map(str::to_owned).into(),
        log_path: "0.log".to_owned(),
        linux: Some(v1::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: sandbox.id.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox.config.clone()),
    };
    let created = link.runtime().create_container(within(CHANGE, request)).await;
    let container_id = answer("CreateContainer", created)?.container_id;
    let request = v1::StartContainerRequest { container_id: container_id.clone() };
    let started = link.runtime().start_container(within(CHANGE, request)).await;
    answer("StartContainer", started)?;
    Ok(container_id)
}

/// Waits until the container has written so many lines, and gives them.
pub async fn lines(log: &Path, count: usize) -> Result<String, Error> {
    let failed = |source| Error::File { doing: "reading", path: log.to_owned(), source };
    let mut watch = Watch::on(log)?;
    let mut reader = Reader::open(log).map_err(failed)?;
    let begun = Instant::now();
    let mut lines = Vec::new();
    while lines.len() < count {
        match reader.next().map_err(failed)? {
            Some(line) => lines.push(shown(&line, false).1),
            None if begun.elapsed() > SILENCE => {
                return Err(DemoError::Silent { seconds: SILENCE.as_secs() }.into());
            }
            None => watch = watch.changed(Duration::from_millis(500)).await?,
        }
    }
    Ok(String::from_utf8_lossy(&lines.concat()).into_owned())
}

/// What a command in the container printed.
pub async fn exec(link: &Link, container: &str, command: &[&str]) -> Result<String, Error> {
    let words = command.iter().map(|&word| word.to_owned()).collect();
    let ended = exec_sync(link, container.to_owned(), words, Some(EXEC)).await?;
    let said = [ended.stdout, ended.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Memory and CPU of the container, in words.
pub async fn usage(link: &Link, container: &str) -> Result<String, Error> {
    let request = v1::ContainerStatsRequest { container_id: container.to_owned() };
    let stats = link.runtime().container_stats(within(LOOK, request)).await;
    let stats = answer("ContainerStats", stats)?.stats.unwrap_or_default();
    let value = |counter: Option<v1::UInt64Value>| counter.map(|counter| counter.value);
    let memory = stats.memory.and_then(|memory| value(memory.working_set_bytes));
    let cpu = stats.cpu.and_then(|cpu| value(cpu.usage_core_nano_seconds));
    let memory = memory.map_or_else(|| "not known".to_owned(), size);
    let cpu = cpu.map_or_else(|| "not known".to_owned(), |ns| took(Duration::from_nanos(ns)));
    Ok(format!("memory {memory}, CPU {cpu} since its start"))
}
