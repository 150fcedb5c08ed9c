//! What a thing owns is a list; undoing walks it backwards.
//!
//! The intent is recorded before the deed: that of the whole list before its first step, with all
//! that undoing it needs to know. The record outlives the daemon then; that it would outlive a loss of
//! power is waited for before a step that does so itself, and before anybody is told. A step that
//! finds out more on its way records that itself, before it uses it. The same `unmake` serves a run
//! that failed, a Stop or Remove, and the clean-up after a crash: it is idempotent, and content with a
//! step that was never made or only half made, so that no record is needed between steps. When an undo
//! fails, the record keeps the place, and the walk can be taken up again for ever.

use std::{fmt::Debug, time::Instant};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// A step of a list, in the order of making.
pub trait Step: Copy + Ord + Debug + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// What is made of them: `pod`, `container`.
    const KIND: &'static str;
    /// All steps, in the order of making.
    const ALL: &'static [Self];
    /// What a message calls it: "the network of the pod".
    fn name(self) -> &'static str;

    fn last() -> Self {
        *Self::ALL.last().expect("a list has steps")
    }
}

/// How far a thing has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase<S> {
    /// This step, and those before it, may be made or half made.
    Making(S),
    /// All steps are made.
    Made,
    /// As `Unmaking`, of a thing that was never whole: nobody was told of it.
    Undoing(S),
    /// This step, and those before it, may still be made or half made.
    Unmaking(S),
    /// No step after this one is made; this one and those before it are.
    Rests(S),
}

impl<S: Step> Phase<S> {
    /// The last step that may be made, in whole or in half.
    pub fn last(self) -> S {
        match self {
            Self::Making(step) | Self::Undoing(step) | Self::Unmaking(step) | Self::Rests(step) => {
                step
            }
            Self::Made => S::last(),
        }
    }
}

/// Something that is made and unmade in steps.
#[async_trait::async_trait]
pub trait Owned: Send {
    type Step: Step;

    fn phase(&self) -> Phase<Self::Step>;

    /// Records the phase, with all that the record holds. `Made` is for telling others: a loss of power
    /// must not make that untrue.
    async fn save(&mut self, phase: Phase<Self::Step>) -> Result<(), Error>;

    async fn make(&mut self, step: Self::Step) -> Result<(), Error>;

    /// Idempotent, and content with a step that was never made or only half made.
    async fn unmake(&mut self, step: Self::Step) -> Result<(), Error>;

    /// After the first step was unmade: nothing is left to record.
    async fn forget(&mut self) -> Result<(), Error>;
}

/// A making that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why, with the step's name.
    pub cause: Error,
    /// What stood in the way of undoing it, if anything did: then the record is kept.
    pub stuck: Option<Error>,
}

/// Makes every step; if one fails, unmakes it and all before it.
pub async fn make_all<T: Owned>(thing: &mut T) -> Result<(), Failed> {
    let not_begun = |cause| Failed { cause, stuck: None };
    thing.save(Phase::Making(T::Step::last())).await.map_err(not_begun)?;
    for &step in T::Step::ALL {
        if let Err(cause) = make(thing, step).await {
            let stuck = unmake_from(thing, Phase::Undoing(step), None).await.err();
            return Err(Failed { cause, stuck });
        }
    }
    let Err(cause) = thing.save(Phase::Made).await else { return Ok(()) };
    let stuck = unmake_from(thing, Phase::Undoing(T::Step::last()), None).await.err();
    Err(Failed { cause, stuck })
}

async fn make<T: Owned>(thing: &mut T, step: T::Step) -> Result<(), Error> {
    crate::faults::before(step).await?;
    let begun = Instant::now();
    thing.make(step).await.map_err(|cause| cause.at(step.name()))?;
    tracing::debug!(kind = T::Step::KIND, ?step, took = ?begun.elapsed(), "made");
    crate::faults::after(step).await
}

/// Unmakes all that may be made of the thing, down to but not including `rest`; all of it if
/// that is `None`, and then forgets it.
pub async fn unmake<T: Owned>(thing: &mut T, rest: Option<T::Step>) -> Result<(), Error> {
    let phase = match (thing.phase(), rest) {
        (Phase::Making(step) | Phase::Undoing(step), None) => Phase::Undoing(step),
        (phase, _) => Phase::Unmaking(phase.last()),
    };
    unmake_from(thing, phase, rest).await
}

/// Stops at the first step that will not go, since what lies below it may still be in use; the
/// record keeps the place for the next try.
async fn unmake_from<T: Owned>(
    thing: &mut T,
    phase: Phase<T::Step>,
    rest: Option<T::Step>,
) -> Result<(), Error> {
    let from = phase.last();
    let todo = T::Step::ALL.iter().rev().copied();
    let mut todo =
        todo.filter(|step| *step <= from && rest.is_none_or(|rest| *step > rest)).peekable();
    if todo.peek().is_some() {
        keep_place(thing, phase).await;
    }
    for step in todo {
        let begun = Instant::now();
        if let Err(cause) = thing.unmake(step).await {
            // From here on it is to be seen, so that somebody can ask for its end again.
            keep_place(thing, Phase::Unmaking(step)).await;
            return Err(cause.at(step.name()));
        }
        tracing::debug!(kind = T::Step::KIND, ?step, took = ?begun.elapsed(), "unmade");
    }
    match rest {
        Some(rest) if rest <= from => {
            keep_place(thing, Phase::Rests(rest)).await;
            Ok(())
        }
        Some(_) => Ok(()),
        None => thing.forget().await,
    }
}

/// A full disk must not keep a pod alive: the phase that is on disk is an earlier one then, from which
/// the same walk would be taken again.
async fn keep_place<T: Owned>(thing: &mut T, phase: Phase<T::Step>) {
    if let Err(error) = thing.save(phase).await {
        let error = error.chain();
        tracing::warn!(?phase, error, "the record cannot be written; unmaking goes on");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use names::Class;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    enum Part {
        Record,
        Folder,
        Network,
        Process,
    }

    impl Step for Part {
        const KIND: &'static str = "thing";
        const ALL: &'static [Self] = &[Self::Record, Self::Folder, Self::Network, Self::Process];

        fn name(self) -> &'static str {
            "a part"
        }
    }

    /// A host that remembers what was made, and a record that outlives a crash.
    #[derive(Default)]
    struct Fake {
        made: BTreeSet<Part>,
        recorded: Option<Phase<Part>>,
        fails_at: Option<(Part, bool)>,
        will_not_go: Option<Part>,
        crashes_at: Option<(Part, bool)>,
        disk_is_full_when: Option<Phase<Part>>,
    }

    fn broken() -> Error {
        Error::Refused { class: Class::Internal, why: "broken".into() }
    }

    #[async_trait::async_trait]
    impl Owned for Fake {
        type Step = Part;

        fn phase(&self) -> Phase<Part> {
            self.recorded.unwrap_or(Phase::Making(Part::Record))
        }

        async fn save(&mut self, phase: Phase<Part>) -> Result<(), Error> {
            if self.disk_is_full_when == Some(phase) {
                return Err(broken());
            }
            self.recorded = Some(phase);
            Ok(())
        }

        async fn make(&mut self, step: Part) -> Result<(), Error> {
            let recorded = self.recorded.expect("the intent comes first");
            assert!(matches!(recorded, Phase::Making(last) if last >= step));
            for (at, fault) in [(self.fails_at, false), (self.crashes_at, true)] {
                if let Some((_, half)) = at.filter(|(at, _)| *at == step) {
                    if half {
                        self.made.insert(step);
                    }
                    return if fault { std::future::pending().await } else { Err(broken()) };
                }
            }
            self.made.insert(step);
            Ok(())
        }

        async fn unmake(&mut self, step: Part) -> Result<(), Error> {
            if self.will_not_go == Some(step) {
                return Err(broken());
            }
            assert!(self.made.iter().all(|made| *made <= step), "the later go first");
            self.made.remove(&step);
            Ok(())
        }

        async fn forget(&mut self) -> Result<(), Error> {
            self.recorded = None;
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_fails_or_half_fails_at_any_step_leaves_nothing() {
        for &step in Part::ALL {
            for half in [false, true] {
                let mut fake = Fake { fails_at: Some((step, half)), ..Fake::default() };
                let failed = make_all(&mut fake).await.unwrap_err();
                assert!(failed.stuck.is_none());
                assert!(fake.made.is_empty() && fake.recorded.is_none(), "{step:?} {half}");
            }
        }
    }

    #[tokio::test]
    async fn what_crashes_at_any_step_is_unmade_from_its_record_alone() {
        for &step in Part::ALL {
            for half in [false, true] {
                let mut fake = Fake { crashes_at: Some((step, half)), ..Fake::default() };
                tokio::select! {
                    biased;
                    _ = make_all(&mut fake) => unreachable!("it hangs at {step:?}"),
                    () = std::future::ready(()) => {}
                }
                unmake(&mut fake, None).await.unwrap();
                assert!(fake.made.is_empty() && fake.recorded.is_none(), "{step:?} {half}");
            }
        }
    }

    #[tokio::test]
    async fn an_undo_that_fails_keeps_the_place_and_can_be_taken_up_again() {
        for &step in Part::ALL {
            let mut fake = Fake::default();
            make_all(&mut fake).await.unwrap();
            fake.will_not_go = Some(step);
            for _ in 0..3 {
                assert!(unmake(&mut fake, None).await.is_err());
                assert_eq!(fake.recorded, Some(Phase::Unmaking(step)));
            }
            fake.will_not_go = None;
            unmake(&mut fake, None).await.unwrap();
            assert!(fake.made.is_empty() && fake.recorded.is_none());
        }
    }

    #[tokio::test]
    async fn a_thing_that_cannot_be_recorded_as_made_is_undone() {
        let mut fake = Fake { disk_is_full_when: Some(Phase::Made), ..Fake::default() };
        assert!(make_all(&mut fake).await.unwrap_err().stuck.is_none());
        assert!(fake.made.is_empty() && fake.recorded.is_none());
    }

    #[tokio::test]
    async fn what_cannot_even_be_recorded_is_not_begun() {
        let full = Some(Phase::Making(Part::Process));
        let mut fake = Fake { disk_is_full_when: full, ..Fake::default() };
        assert!(make_all(&mut fake).await.is_err());
        assert!(fake.made.is_empty() && fake.recorded.is_none());
    }

    #[tokio::test]
    async fn a_stop_rests_half_way_and_a_second_one_changes_nothing() {
        let mut fake = Fake::default();
        make_all(&mut fake).await.unwrap();
        for _ in 0..2 {
            unmake(&mut fake, Some(Part::Folder)).await.unwrap();
            assert_eq!(fake.made, [Part::Record, Part::Folder].into());
            assert_eq!(fake.recorded, Some(Phase::Rests(Part::Folder)));
        }
    }
}
