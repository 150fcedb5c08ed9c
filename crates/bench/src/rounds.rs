//! The first part: pods one after the other, in turn on each target.

use crate::Measured;
use crate::args::Args;
use crate::error::Error;
use crate::pod::{self, Recipe, Times};
use crate::target::Target;

/// One round more than asked for is made, and not counted: the first warms the caches.
pub async fn run(
    args: &Args,
    measured: &mut [Measured<'_>],
    recipes: &[Recipe],
) -> Result<(), Error> {
    for number in 0..=args.rounds {
        for ((target, record), recipe) in measured.iter_mut().zip(recipes) {
            let times = round(target, recipe).await?;
            if number > 0 {
                times.into_iter().for_each(|(measure, value)| record.put(measure, value));
            }
        }
    }
    Ok(())
}

async fn round(target: &Target, recipe: &Recipe) -> Result<Times, Error> {
    let (pod, mut times) = pod::up(target, recipe).await?;
    times.extend(pod::down(target, pod).await?);
    Ok(times)
}
