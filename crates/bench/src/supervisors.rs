//! Which processes supervise the pods that are held, and what memory of theirs is counted.
//!
//! What is wanted is all of their memory while so many pods are held. That is plain for those that
//! were started with the pods. One that was there before, as the shim of a whole node, serves all
//! pods of the runtime: it counts whole where these are all ours, and otherwise only as far as it
//! grew, for the rest is other pods' as well.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::args::Args;
use crate::column::Column;
use crate::error::Error;
use crate::pod::Recipe;
use crate::process::{Memory, Processes};
use crate::sweep;

/// Those that count though nobody started them for our pods, when the flags name none.
const KNOWN: [&str; 3] = ["podbay-shim", "podbay-pause", "pause"];

/// What was found, for those who want to know what is in the figures.
#[derive(Debug, Default, Serialize)]
pub struct Supervisors {
    /// How many of each name were started with the pods.
    pub started: BTreeMap<String, usize>,
    /// How many of each name were there before.
    pub standing: BTreeMap<String, usize>,
    pub standing_counted: Counted,
    /// Pods of the runtime that are not ours.
    pub other_pods: usize,
}

/// How those are counted that were there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    #[default]
    Whole,
    Growth,
}

impl Counted {
    fn beside(other_pods: usize) -> Counted {
        if other_pods == 0 { Counted::Whole } else { Counted::Growth }
    }
}

/// How it was before there were pods of ours.
pub struct Before {
    processes: Processes,
    standing: Processes,
    memory: BTreeMap<u32, Memory>,
    other_pods: usize,
}

impl Before {
    pub async fn now(args: &Args, column: &Column<'_>) -> Result<Before, Error> {
        let target = column.target;
        let other_pods = sweep::others(target).await?;
        let processes = Processes::now()?;
        let standing = processes
            .serving(&target.marks)
            .only(|name, line| !column.recipe.is_workload(line) && may_stand(args, name));
        Ok(Before { memory: standing.memory(), processes, standing, other_pods })
    }

    /// The supervisors now that the pods are held, and the memory of theirs that counts.
    pub fn found(&self, args: &Args, column: &Column<'_>) -> Result<(Supervisors, Memory), Error> {
        let now = Processes::now()?;
        let started = now
            .started_since(&self.processes, &column.target.marks, &self.standing)
            .only(|name, line| counts(args, &column.recipe, name, line));
        let standing = now.known_since(&self.standing);
        let counted = Counted::beside(self.other_pods);
        let memory = total(&started.memory(), &BTreeMap::new(), Counted::Whole)
            + total(&standing.memory(), &self.memory, counted);
        let supervisors = Supervisors {
            started: started.names(),
            standing: standing.names(),
            standing_counted: counted,
            other_pods: self.other_pods,
        };
        Ok((supervisors, memory))
    }
}

/// Whether one that was started with the pods does: all but the containers, unless the flags say
/// which.
fn counts(args: &Args, recipe: &Recipe, name: &str, command_line: &[String]) -> bool {
    let wanted = &args.supervisors;
    !recipe.is_workload(command_line) && (wanted.is_empty() || is_one_of(wanted, name))
}

/// Whether one that was there before does.
fn may_stand(args: &Args, name: &str) -> bool {
    let wanted = &args.supervisors;
    if wanted.is_empty() { is_one_of(&KNOWN, name) } else { is_one_of(wanted, name) }
}

/// The kernel keeps 15 letters of a name.
fn is_one_of(wanted: &[impl AsRef<str>], name: &str) -> bool {
    let is = |wanted: &str| wanted.starts_with(name) && wanted.len().min(15) == name.len();
    wanted.iter().any(|wanted| is(wanted.as_ref()))
}

/// The sum of what counts of each.
fn total(now: &BTreeMap<u32, Memory>, then: &BTreeMap<u32, Memory>, counted: Counted) -> Memory {
    let one = |(pid, memory): (&u32, &Memory)| match counted {
        Counted::Whole => *memory,
        Counted::Growth => *memory - then.get(pid).copied().unwrap_or_default(),
    };
    now.iter().map(one).fold(Memory::default(), |sum, one| sum + one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(pss: f64, private: f64) -> Memory {
        Memory { pss, private }
    }

    #[test]
    fn the_shim_of_a_node_with_no_other_pods_counts_whole() {
        let (then, now) =
            ([(7, memory(1200.0, 900.0))].into(), [(7, memory(1550.0, 1000.0))].into());
        assert_eq!(Counted::beside(0), Counted::Whole);
        assert_eq!(total(&now, &then, Counted::Whole), memory(1550.0, 1000.0));
    }

    #[test]
    fn beside_other_pods_only_the_growth_counts_and_one_may_shrink() {
        let then = [(7, memory(1200.0, 900.0)), (8, memory(500.0, 300.0))].into();
        let now = [(7, memory(1550.0, 1000.0)), (8, memory(450.0, 300.0))].into();
        assert_eq!(Counted::beside(1), Counted::Growth);
        assert_eq!(total(&now, &then, Counted::Growth), memory(300.0, 100.0));
    }

    #[test]
    fn one_that_ended_meanwhile_takes_nothing_away() {
        let then = [(7, memory(1200.0, 900.0))].into();
        assert_eq!(total(&BTreeMap::new(), &then, Counted::Growth), memory(0.0, 0.0));
    }

    #[test]
    fn names_are_compared_by_the_letters_that_the_kernel_keeps() {
        let wanted = ["containerd-shim-runc-v2", "pause"];
        assert!(is_one_of(&wanted, "containerd-shim") && is_one_of(&wanted, "pause"));
        assert!(!is_one_of(&wanted, "containerd") && !is_one_of(&wanted, "pau"));
        assert!(!is_one_of(&[""; 0], "pause"));
    }
}
