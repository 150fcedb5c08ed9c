//! `podbay stop` and `podbay rm`, of pods and containers alike.

use std::io::Write;
use std::time::Duration;

use cri_proto::v1;

use crate::args::{Rm, Stop};
use crate::error::Error;
use crate::find::{self, Named, Thing};
use crate::link::{CHANGE, Link, answer, within};
use crate::words::short;

/// Stops each, and prints what was given for it when it is so.
pub async fn stop(link: &Link, stop: &Stop, out: &mut dyn Write) -> Result<(), Error> {
    for wanted in &stop.ids {
        match find::thing(link, wanted).await? {
            Thing::Pod(pod) => stop_pod(link, &pod.id, stop.grace).await?,
            Thing::Container(container) => {
                stop_container(link, container.id, stop.grace).await?;
            }
        }
        super::print(out, &format!("{wanted} stopped\n"))?;
    }
    Ok(())
}

pub async fn rm(link: &Link, rm: &Rm, out: &mut dyn Write) -> Result<(), Error> {
    for wanted in &rm.ids {
        let thing = find::thing(link, wanted).await?;
        if !rm.force {
            refuse_running(&thing, wanted)?;
        }
        match thing {
            Thing::Pod(pod) => end_pod(link, &pod.id, Duration::ZERO).await?,
            Thing::Container(container) => remove_container(link, container.id).await?,
        }
        super::print(out, &format!("{wanted} removed\n"))?;
    }
    Ok(())
}

fn refuse_running(thing: &Thing, wanted: &str) -> Result<(), Error> {
    let (kind, runs) = match thing {
        Thing::Pod(pod) => ("pod", pod.state == i32::from(v1::PodSandboxState::SandboxReady)),
        Thing::Container(container) => {
            ("container", container.state == i32::from(v1::ContainerState::ContainerRunning))
        }
    };
    let wanted = if wanted == thing.id() { short(wanted) } else { wanted };
    if runs { Err(Error::StillRuns { kind, wanted: wanted.to_owned() }) } else { Ok(()) }
}

/// Stops and removes a pod with all its containers.
pub async fn end_pod(link: &Link, id: &str, grace: Duration) -> Result<(), Error> {
    stop_pod(link, id, grace).await?;
    let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    let removed = link.runtime().remove_pod_sandbox(within(CHANGE, request)).await;
    answer("RemovePodSandbox", removed).map(drop)
}

/// Containers first, for only they have a grace.
async fn stop_pod(link: &Link, id: &str, grace: Duration) -> Result<(), Error> {
    let containers = find::containers(link).await?;
    let running = i32::from(v1::ContainerState::ContainerRunning);
    let of_pod = containers.into_iter().filter(|c| c.pod_sandbox_id == id && c.state == running);
    let stops = of_pod.map(|c| stop_container(link, c.id().to_owned(), grace));
    futures_util::future::try_join_all(stops).await?;
    let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    let stopped = link.runtime().stop_pod_sandbox(within(CHANGE, request)).await;
    answer("StopPodSandbox", stopped).map(drop)
}

async fn stop_container(link: &Link, container_id: String, grace: Duration) -> Result<(), Error> {
    let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let request = v1::StopContainerRequest { container_id, timeout };
    let request = within(grace.saturating_add(CHANGE), request);
    answer("StopContainer", link.runtime().stop_container(request).await).map(drop)
}

async fn remove_container(link: &Link, container_id: String) -> Result<(), Error> {
    let request = within(CHANGE, v1::RemoveContainerRequest { container_id });
    answer("RemoveContainer", link.runtime().remove_container(request).await).map(drop)
}
