//! The first part: pods one after the other, in turn for each column.

use crate::args::Args;
use crate::column::{Column, in_turn};
use crate::error::Error;
use crate::pod::{self, Times};

/// One round more than asked for is made, and not counted: the first warms the caches.
pub async fn run(args: &Args, columns: &mut [Column<'_>]) -> Result<(), Error> {
    for number in 0..=args.rounds {
        for at in in_turn(columns.len(), number) {
            let times = round(&columns[at]).await?;
            if number > 0 {
                columns[at].record.put_all(times);
            }
        }
    }
    Ok(())
}

async fn round(column: &Column<'_>) -> Result<Times, Error> {
    let (pod, mut times) = pod::up(column.target, &column.recipe).await?;
    times.extend(pod::down(column.target, pod).await?);
    Ok(times)
}
