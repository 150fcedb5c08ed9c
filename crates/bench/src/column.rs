//! A column of the table: a runtime with one of its handlers, how pods are made there, and what was
//! measured of them.

use std::path::Path;

use crate::args::Args;
use crate::error::Error;
use crate::image;
use crate::measure::Record;
use crate::pod::Recipe;
use crate::target::Target;

pub struct Column<'a> {
    pub target: &'a Target,
    pub recipe: Recipe,
    pub record: Record,
}

/// The columns of all targets, in their order. An image is looked for, or made, once per target.
pub async fn all<'a>(
    args: &Args,
    targets: &'a [Target],
    logs: &Path,
) -> Result<Vec<Column<'a>>, Error> {
    let mut columns = Vec::new();
    for target in targets {
        let image = image::choose(args, target).await?;
        for handler in &target.handlers {
            // Two columns may have the same names.
            let number = columns.len();
            let logs = logs.join(number.to_string());
            std::fs::create_dir(&logs).map_err(Error::Logs)?;
            let recipe = Recipe::new(args, image.clone(), handler, number, &logs);
            columns.push(Column { target, recipe, record: Record::default() });
        }
    }
    Ok(columns)
}

/// Every column once. Each time another one is the first, so that none has always the same one
/// before it, whose traces may still be cleared away.
pub fn in_turn(columns: usize, round: u32) -> impl Iterator<Item = usize> {
    let first = usize::try_from(round).expect("32 bits fit into a usize");
    (0..columns).map(move |place| (first + place) % columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_turn_and_each_is_the_first_at_times() {
        let turns = |round| in_turn(3, round).collect::<Vec<_>>();
        assert_eq!([0, 1, 2, 3].map(turns), [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
