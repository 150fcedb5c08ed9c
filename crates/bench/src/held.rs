//! The third part: many pods held. What they cost in memory, and what calls cost beside them.

use std::time::Duration;

use cri_proto::v1;

use crate::args::Args;
use crate::column::{Column, in_turn};
use crate::crowd;
use crate::error::Error;
use crate::measure::Measure;
use crate::pod::{Pod, Times, timed};
use crate::process::{self, Memory};
use crate::supervisors::Before;
use crate::target::Target;

/// How long what was just started or ended may take to come to rest, before memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// Memory is looked at while one column alone holds its pods: those of others would share pages
/// with its own, and add to what their common daemon needs. Calls can only go from one to the
/// other while all hold some.
pub async fn run(args: &Args, columns: &mut [Column<'_>]) -> Result<(), Error> {
    if args.held == 0 {
        return Ok(());
    }
    let held = match &mut *columns {
        [alone] => vec![weighed(args, alone).await?],
        all => {
            for column in &mut *all {
                let pods = weighed(args, column).await?;
                crowd::down(args, column.target, pods).await?;
            }
            together(args, all).await?
        }
    };
    for round in 0..args.rounds.max(1) {
        for at in in_turn(columns.len(), round) {
            let times = calls(columns[at].target, &held[at][0]).await?;
            columns[at].record.put_all(times);
        }
    }
    for (column, pods) in columns.iter().zip(held) {
        crowd::down(args, column.target, pods).await?;
    }
    Ok(())
}

/// Makes the pods that are held and puts down their memory.
async fn weighed(args: &Args, column: &mut Column<'_>) -> Result<Vec<Pod>, Error> {
    tokio::time::sleep(REST).await;
    let before = Before::now(args, column).await?;
    let free = process::available_kib()?;
    let pods = crowd::up(args, args.held, column.target, &column.recipe, None).await?;
    tokio::time::sleep(REST).await;
    let count = f64::from(args.held);
    let used = free - process::available_kib()?;
    let (supervisors, memory) = before.found(args, column)?;
    let record = &mut column.record;
    if let Some(daemon) = column.target.marks.daemon {
        record.put(Measure::DaemonPss, Memory::of(daemon)?.pss / 1024.0);
    }
    record.put(Measure::NodeMemory, used / count);
    record.put(Measure::SupervisorPss, memory.pss / count);
    record.put(Measure::SupervisorPrivate, memory.private / count);
    record.supervisors = supervisors;
    Ok(pods)
}

/// Makes pods of all columns. As many at each socket, however many columns it has, so that lists
/// are of one length everywhere.
async fn together(args: &Args, columns: &[Column<'_>]) -> Result<Vec<Vec<Pod>>, Error> {
    let mut held = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let same = |other: &&Column<'_>| std::ptr::eq(other.target, column.target);
        let before = columns[..at].iter().filter(same).count();
        let count = share(args.held, columns.iter().filter(same).count(), before);
        held.push(crowd::up(args, count, column.target, &column.recipe, None).await?);
    }
    Ok(held)
}

/// What one of the columns of a socket gets, by how many are before it. At least one.
fn share(held: u32, columns: usize, before: usize) -> u32 {
    let count = |number: usize| u32::try_from(number).expect("there are 26 columns at most");
    let (columns, before) = (count(columns), count(before));
    (held / columns + u32::from(before < held % columns)).max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_socket_share_its_pods_and_each_gets_one() {
        let shares = |held, columns| {
            (0..columns).map(|before| share(held, columns, before)).collect::<Vec<_>>()
        };
        assert_eq!(shares(50, 1), [50]);
        assert_eq!(shares(50, 3), [17, 17, 16]);
        assert_eq!(shares(2, 3), [1, 1, 1]);
    }
}
