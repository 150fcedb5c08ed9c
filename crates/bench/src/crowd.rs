//! The second part: pods many at a time, and what the whole node spends on them.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::args::Args;
use crate::column::Column;
use crate::error::Error;
use crate::measure::{Measure, Record};
use crate::pod::{self, Pod, Recipe};
use crate::process;
use crate::target::Target;

pub async fn run(args: &Args, columns: &mut [Column<'_>]) -> Result<(), Error> {
    if args.pods == 0 {
        return Ok(());
    }
    for Column { target, recipe, record } in columns {
        let clock = Clock::start()?;
        let pods = up(args, args.pods, target, recipe, Some(record)).await?;
        clock.stop(args, record, Measure::CrowdUpRate, Measure::CrowdUpCpu)?;
        let clock = Clock::start()?;
        down(args, target, pods).await?;
        clock.stop(args, record, Measure::CrowdDownRate, Measure::CrowdDownCpu)?;
    }
    Ok(())
}

/// Makes `count` pods, so many at a time as the flags say.
pub async fn up(
    args: &Args,
    count: u32,
    target: &Target,
    recipe: &Recipe,
    mut record: Option<&mut Record>,
) -> Result<Vec<Pod>, Error> {
    let mut ups =
        stream::iter((0..count).map(|_| pod::up(target, recipe))).buffer_unordered(at_a_time(args));
    let mut pods = Vec::new();
    while let Some((pod, times)) = ups.try_next().await? {
        let whole = times.into_iter().find(|(measure, _)| *measure == Measure::PodUp);
        if let (Some(record), Some((_, value))) = (record.as_deref_mut(), whole) {
            record.put(Measure::CrowdPodUp, value);
        }
        pods.push(pod);
    }
    Ok(pods)
}

/// Removes them in the same manner.
pub async fn down(args: &Args, target: &Target, pods: Vec<Pod>) -> Result<(), Error> {
    stream::iter(pods.into_iter().map(|pod| pod::down(target, pod)))
        .buffer_unordered(at_a_time(args))
        .try_for_each(|_| async { Ok(()) })
        .await
}

fn at_a_time(args: &Args) -> usize {
    usize::try_from(args.parallel).expect("32 bits fit into a usize")
}

/// Wall and CPU time of the node.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Result<Clock, Error> {
        Ok(Clock { wall: Instant::now(), cpu: process::node_cpu_seconds()? })
    }

    /// Puts down pods a second, and CPU milliseconds of the node a pod.
    fn stop(
        self,
        args: &Args,
        record: &mut Record,
        rate: Measure,
        cpu: Measure,
    ) -> Result<(), Error> {
        let pods = f64::from(args.pods);
        record.put(rate, pods / self.wall.elapsed().as_secs_f64());
        record.put(cpu, (process::node_cpu_seconds()? - self.cpu) * 1e3 / pods);
        Ok(())
    }
}
