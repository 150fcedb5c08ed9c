//! One pod with one container, made and unmade as a kubelet would, each call timed.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cri_proto::v1;
use tonic::{Response, Status};

use crate::args::{Args, Network};
use crate::error::Error;
use crate::image::Image;
use crate::measure::Measure;
use crate::target::Target;

/// What every pod of ours carries, and nobody else's.
pub const LABEL: (&str, &str) = ("podbay-bench", "1");

/// How pods are made at one target.
pub struct Recipe {
    image: Image,
    handler: String,
    network: Network,
    command: Vec<String>,
    logs: PathBuf,
    /// Of the column: columns of one runtime must not give their pods the same names.
    column: usize,
    made: AtomicU64,
}

/// A pod that is up.
#[derive(Debug)]
pub struct Pod {
    pub sandbox: String,
    pub container: String,
}

/// How long each call took.
pub type Times = Vec<(Measure, f64)>;

impl Recipe {
    pub fn new(args: &Args, image: Image, handler: &str, column: usize, logs: &Path) -> Recipe {
        Recipe {
            image,
            handler: handler.to_owned(),
            network: args.network,
            command: args.command.clone(),
            logs: logs.to_owned(),
            column,
            made: AtomicU64::new(0),
        }
    }

    /// Empty for the default one.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    pub fn image(&self) -> &str {
        &self.image.name
    }

    /// The process of ours in a container, by its command line.
    pub fn is_workload(&self, command_line: &[String]) -> bool {
        command_line == self.command
    }

    /// A sandbox of a name that was not used before. Makes its log directory, as a kubelet does.
    fn sandbox(&self, target: &Target) -> Result<v1::PodSandboxConfig, Error> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-{}-{number}", self.column);
        let uid = format!("{}-{}-{number}", std::process::id(), self.column);
        let host = self.network == Network::Host;
        let logs = self.logs.join(format!("{}-{uid}", target.name.replace(['/', ' '], "-")));
        DirBuilder::new().create(&logs).map_err(Error::Logs)?;
        Ok(v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.clone(),
                uid,
                namespace: "podbay-bench".to_owned(),
                attempt: 0,
            }),
            hostname: if host { String::new() } else { name },
            log_directory: logs.to_string_lossy().into_owned(),
            labels: [(LABEL.0.to_owned(), LABEL.1.to_owned())].into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(self.namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn container(&self) -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "bench".to_owned(), attempt: 0 }),
            image: Some(v1::ImageSpec {
                image: self.image.id.clone(),
                user_specified_image: self.image.name.clone(),
                ..Default::default()
            }),
            command: self.command.clone(),
            log_path: "bench.log".to_owned(),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(self.namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// As a kubelet asks for: processes of a container see only themselves.
    fn namespaces(&self) -> v1::NamespaceOption {
        let network = match self.network {
            Network::Host => v1::NamespaceMode::Node,
            Network::Pod => v1::NamespaceMode::Pod,
        };
        v1::NamespaceOption {
            network: network.into(),
            pid: v1::NamespaceMode::Container.into(),
            ..Default::default()
        }
    }
}

/// Makes a pod and starts its container.
///
/// # Errors
/// Says which handler it was, if it has a name: a runtime seldom does.
pub async fn up(target: &Target, recipe: &Recipe) -> Result<(Pod, Times), Error> {
    make(target, recipe).await.map_err(|error| match &*recipe.handler {
        "" => error,
        handler => Error::Pod { handler: handler.to_owned(), error: Box::new(error) },
    })
}

async fn make(target: &Target, recipe: &Recipe) -> Result<(Pod, Times), Error> {
    let mut runtime = target.runtime();
    let mut times = Times::new();
    let config = recipe.sandbox(target)?;
    let begun = Instant::now();

    let request = v1::RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: recipe.handler.clone(),
    };
    let run = runtime.run_pod_sandbox(request);
    let sandbox = timed(target, &mut times, Measure::RunPodSandbox, run).await?.pod_sandbox_id;

    let create = runtime.create_container(v1::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(recipe.container()),
        sandbox_config: Some(config),
    });
    let container = timed(target, &mut times, Measure::CreateContainer, create).await?.container_id;

    let start =
        runtime.start_container(v1::StartContainerRequest { container_id: container.clone() });
    timed(target, &mut times, Measure::StartContainer, start).await?;
    times.push((Measure::PodUp, millis(begun)));
    Ok((Pod { sandbox, container }, times))
}

/// Ends and removes a pod, container first. The container is killed at once: how long a program
/// takes to end is not the runtime's doing.
pub async fn down(target: &Target, pod: Pod) -> Result<Times, Error> {
    let Pod { sandbox, container } = pod;
    let mut runtime = target.runtime();
    let mut times = Times::new();

    let request = v1::StopContainerRequest { container_id: container.clone(), timeout: 0 };
    let stop = runtime.stop_container(request);
    timed(target, &mut times, Measure::StopContainer, stop).await?;

    let remove = runtime.remove_container(v1::RemoveContainerRequest { container_id: container });
    timed(target, &mut times, Measure::RemoveContainer, remove).await?;

    let request = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    let stop = runtime.stop_pod_sandbox(request);
    timed(target, &mut times, Measure::StopPodSandbox, stop).await?;

    let request = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    let remove = runtime.remove_pod_sandbox(request);
    timed(target, &mut times, Measure::RemovePodSandbox, remove).await?;
    Ok(times)
}

/// Waits for an answer and puts down how long it took. The errors are named by the measure.
pub async fn timed<T>(
    target: &Target,
    times: &mut Times,
    measure: Measure,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    let begun = Instant::now();
    let answer = call.await;
    times.push((measure, millis(begun)));
    target.checked(measure.title(), answer)
}

/// Milliseconds since then.
pub fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}
