//! What went through a pod's network interfaces.

use std::time::Duration;

use sys::netdev::Interface;

use crate::{Error, error::Context, pod::PodRecord};

/// How long the kernel may take to count, under its lock on the network.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pod's own interfaces, without its loopback, over which nothing leaves it. None for a pod on
/// the host's network: those count for the whole node.
pub(crate) async fn of(pod: &PodRecord) -> Result<Option<Vec<Interface>>, Error> {
    let Some(netns) = pod.netns.clone() else { return Ok(None) };
    // The thread that enters the namespace is one of its own, and ends there.
    let reading = tokio::task::spawn_blocking(move || {
        let read = sys::netns::within(&netns, sys::netdev::read).flatten();
        read.on("counting the traffic of the network namespace", netns)
    });
    let late = |_| Error::Late { doing: "counting the pod's traffic", within: PATIENCE };
    let read = tokio::time::timeout(PATIENCE, reading).await.map_err(late)?;
    let mut all = read.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
    all.retain(|interface| interface.name != "lo");
    Ok(Some(all))
}
