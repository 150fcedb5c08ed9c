//! Telling our pods from others, by their label, and removing every one of ours, whoever made it: this
//! run, or an earlier one that was killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cri_proto::v1;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::Error;
use crate::pod::LABEL;
use crate::target::Target;

/// How long there must be none: a call that was cut off may still make its pod.
const QUIET: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(120);
const AT_A_TIME: usize = 8;

/// Removes them until there are none, twice.
///
/// # Errors
/// The runtime refuses, or still has some after two minutes.
pub async fn sweep(target: &Target) -> Result<(), Error> {
    let begun = Instant::now();
    let mut quiet = false;
    loop {
        let pods = ours(target).await?;
        match (pods.is_empty(), quiet) {
            (true, true) => return Ok(()),
            (true, false) => tokio::time::sleep(QUIET).await,
            (false, _) if begun.elapsed() > DEADLINE => {
                return Err(Error::Stuck { socket: target.socket.clone(), left: pods.len() });
            }
            (false, _) => remove(target, &pods).await?,
        }
        quiet = pods.is_empty();
    }
}

async fn ours(target: &Target) -> Result<Vec<String>, Error> {
    let filter = v1::PodSandboxFilter {
        label_selector: BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]),
        ..Default::default()
    };
    let request = v1::ListPodSandboxRequest { filter: Some(filter) };
    let list = target.runtime().list_pod_sandbox(request).await;
    let pods = target.checked("ListPodSandbox", list)?.items;
    // Looked at once more: a runtime that does not know the filter must not cost anyone a pod.
    Ok(pods.into_iter().filter(is_ours).map(|pod| pod.id).collect())
}

/// How many pods are there that are not ours.
pub async fn others(target: &Target) -> Result<usize, Error> {
    let list = target.runtime().list_pod_sandbox(v1::ListPodSandboxRequest::default()).await;
    let pods = target.checked("ListPodSandbox", list)?.items;
    Ok(pods.iter().filter(|pod| !is_ours(pod)).count())
}

fn is_ours(pod: &v1::PodSandbox) -> bool {
    pod.labels.get(LABEL.0).is_some_and(|value| value == LABEL.1)
}

async fn remove(target: &Target, pods: &[String]) -> Result<(), Error> {
    stream::iter(pods.iter().map(|pod| remove_one(target, pod)))
        .buffer_unordered(AT_A_TIME)
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn remove_one(target: &Target, pod: &str) -> Result<(), Error> {
    let mut runtime = target.runtime();
    let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() };
    target.checked("StopPodSandbox", runtime.stop_pod_sandbox(request).await)?;
    let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() };
    target.checked("RemovePodSandbox", runtime.remove_pod_sandbox(request).await).map(drop)
}
