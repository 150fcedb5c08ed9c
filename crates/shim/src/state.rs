//! The life of a container, as one pure function, and what each state lets be done.

use shim_api::{Exit, process::Status};

/// Where a container is in its life. The dead stay dead.
///
/// ```text
/// Making ──Made──► Created ──Started──► Running
///                     └──Died──► Stopped ◄──Died──┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Making,
    Created { pid: u32 },
    Running { pid: u32 },
    Stopped { pid: u32, exit: Exit },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Made { pid: u32 },
    Started,
    Died(Exit),
}

impl State {
    /// What the event makes of it. An event that cannot be changes nothing: a container may die
    /// before we hear that its start went well.
    pub fn on(self, event: Event) -> Self {
        match (self, event) {
            (Self::Making, Event::Made { pid }) => Self::Created { pid },
            (Self::Created { pid }, Event::Started) => Self::Running { pid },
            (Self::Created { pid } | Self::Running { pid }, Event::Died(exit)) => {
                Self::Stopped { pid, exit }
            }
            (state, _) => state,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Making => "being created",
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// The init's pid, also of a dead one. 0 if there never was one.
    pub fn pid(self) -> u32 {
        match self {
            Self::Making => 0,
            Self::Created { pid } | Self::Running { pid } | Self::Stopped { pid, .. } => pid,
        }
    }

    /// The pid, if the init lives.
    pub fn alive(self) -> Option<u32> {
        match self {
            Self::Created { pid } | Self::Running { pid } => Some(pid),
            Self::Making | Self::Stopped { .. } => None,
        }
    }

    pub fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped { exit, .. } => Some(exit),
            _ => None,
        }
    }

    pub fn status(self) -> Status {
        match self {
            Self::Making => Status::UNKNOWN,
            Self::Created { .. } => Status::CREATED,
            Self::Running { .. } => Status::RUNNING,
            Self::Stopped { .. } => Status::STOPPED,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        let exit = (any::<i32>(), any::<i64>(), any::<bool>())
            .prop_map(|(code, at, oom)| Event::Died(Exit { code, at, oom }));
        prop_oneof![(1..9_u32).prop_map(|pid| Event::Made { pid }), Just(Event::Started), exit]
    }

    proptest! {
        #[test]
        fn the_dead_stay_dead_and_a_pid_never_changes(events in prop::collection::vec(event(), 0..9)) {
            let mut state = State::Making;
            for event in events {
                let next = state.on(event);
                if state.exit().is_some() {
                    prop_assert_eq!(next, state);
                }
                if state != State::Making {
                    prop_assert_eq!(next.pid(), state.pid());
                }
                prop_assert!(next.alive().is_none() || next.exit().is_none());
                state = next;
            }
        }
    }

    #[test]
    fn a_container_that_died_early_is_not_started() {
        let exit = Exit { code: 1, at: 2, oom: false };
        let state = State::Making.on(Event::Made { pid: 7 }).on(Event::Died(exit));
        assert_eq!(state.on(Event::Started), State::Stopped { pid: 7, exit });
    }
}
