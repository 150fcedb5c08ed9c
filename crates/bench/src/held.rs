//! The third part: many pods held. What they cost in memory, and what calls cost beside them.

use std::time::Duration;

use cri_proto::v1;

use crate::Measured;
use crate::args::Args;
use crate::crowd;
use crate::error::Error;
use crate::measure::{Measure, Record};
use crate::pod::{Pod, Recipe, Times, timed};
use crate::process::{self, Memory, Processes};
use crate::target::Target;

/// How long what was just started may take to come to rest, before memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// All targets hold their pods at the same time, so that calls can go from one to the other.
pub async fn run(
    args: &Args,
    measured: &mut [Measured<'_>],
    recipes: &[Recipe],
) -> Result<(), Error> {
    if args.held == 0 {
        return Ok(());
    }
    let mut held = Vec::new();
    for ((target, record), recipe) in measured.iter_mut().zip(recipes) {
        held.push(hold(args, target, record, recipe).await?);
    }
    for _ in 0..args.rounds.max(1) {
        for ((target, record), pods) in measured.iter_mut().zip(&held) {
            let times = calls(target, &pods[0]).await?;
            times.into_iter().for_each(|(measure, value)| record.put(measure, value));
        }
    }
    for ((target, _), pods) in measured.iter().zip(held) {
        crowd::down(args, target, pods).await?;
    }
    Ok(())
}

/// Makes the pods that are held and puts down their memory.
async fn hold(
    args: &Args,
    target: &Target,
    record: &mut Record,
    recipe: &Recipe,
) -> Result<Vec<Pod>, Error> {
    let before = Processes::now()?;
    let free = process::available_kib()?;
    let pods = crowd::up(args, args.held, target, recipe, None).await?;
    tokio::time::sleep(REST).await;
    let count = f64::from(args.held);
    record.put(Measure::NodeMemory, (free - process::available_kib()?) / count);
    if let Some(daemon) = target.daemon {
        record.put(Measure::DaemonPss, Memory::of(daemon)?.pss / 1024.0);
    }
    let supervisors = Processes::now()?
        .started_since(&before, target.daemon)
        .only(|name, line| !recipe.is_workload(line) && is_supervisor(args, name));
    let memory = supervisors.memory();
    record.put(Measure::SupervisorPss, memory.pss / count);
    record.put(Measure::SupervisorPrivate, memory.private / count);
    record.supervisors = supervisors.names();
    Ok(pods)
}

/// Whether it counts, when the flags say which do. The kernel keeps 15 letters of a name.
fn is_supervisor(args: &Args, name: &str) -> bool {
    let counts = |wanted: &String| wanted.starts_with(name) && wanted.len().min(15) == name.len();
    args.supervisors.is_empty() || args.supervisors.iter().any(counts)
}

/// The calls that a kubelet makes all the time, each once.
async fn calls(target: &Target, pod: &Pod) -> Result<Times, Error> {
    let mut runtime = target.runtime();
    let mut times = Times::new();
    let exec = runtime.exec_sync(v1::ExecSyncRequest {
        container_id: pod.container.clone(),
        cmd: vec!["true".to_owned()],
        timeout: 30,
    });
    timed(target, &mut times, Measure::ExecSync, exec).await?;
    let list = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default());
    timed(target, &mut times, Measure::ListPodSandbox, list).await?;
    let list = runtime.list_containers(v1::ListContainersRequest::default());
    timed(target, &mut times, Measure::ListContainers, list).await?;
    let status = runtime.container_status(v1::ContainerStatusRequest {
        container_id: pod.container.clone(),
        verbose: false,
    });
    timed(target, &mut times, Measure::ContainerStatus, status).await?;
    let stats = runtime.list_container_stats(v1::ListContainerStatsRequest::default());
    timed(target, &mut times, Measure::ListContainerStats, stats).await?;
    Ok(times)
}
