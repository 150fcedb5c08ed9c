//! Waiting for the end of a sandbox, over restarts of its sandboxer.
//!
//! A sandboxer that is away says nothing about its sandboxes: they are unknown, not ended. When it is
//! back it is asked how they are before it is waited for again.

use std::time::{Duration, Instant};

use names::Class;
use tokio::time::sleep;

use super::{Fault, Sandboxer, answer::UNSEEN};
use crate::{Controller as _, Error, Exit, Place, Status};

/// How long to wait before the first and, after doubling, before every later attempt.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One wait for one sandbox.
pub(super) struct Watch<'a> {
    sandboxer: &'a Sandboxer,
    place: &'a Place,
    pause: Duration,
    /// Since when the sandboxer has not answered.
    away: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(sandboxer: &'a Sandboxer, place: &'a Place) -> Self {
        Self { sandboxer, place, pause: BACK_OFF.0, away: None }
    }

    pub(super) async fn end(mut self) -> Result<Exit, Error> {
        loop {
            let begun = Instant::now();
            match self.sandboxer.ask_wait(self.place).await {
                Ok(exit) => return Ok(exit),
                Err(error) if is_final(error.class()) => return Err(error),
                Err(error) => {
                    tracing::info!(pod = %self.place.id, error = names::chain(&error), "the wait for the sandbox was broken off");
                }
            }
            if begun.elapsed() > BACK_OFF.1 {
                self.pause = BACK_OFF.0;
            }
            if let Some(exit) = self.reconcile().await? {
                return Ok(exit);
            }
        }
    }

    /// Asks until it is known how the sandbox is; none if it lives.
    async fn reconcile(&mut self) -> Result<Option<Exit>, Error> {
        loop {
            self.rest().await;
            match self.sandboxer.status(self.place).await {
                Ok(Status::Created | Status::Running) => {
                    self.away = None;
                    return Ok(None);
                }
                Ok(Status::Stopped(exit)) => return Ok(Some(exit)),
                Ok(Status::Gone) => return Ok(Some(Exit { code: UNSEEN, at: names::now() })),
                Err(error) => self.bear(error)?,
            }
        }
    }

    async fn rest(&mut self) {
        let grace = self.sandboxer.config.grace;
        let left = self.away.map_or(grace, |since| grace.saturating_sub(since.elapsed()));
        sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(BACK_OFF.1);
    }

    /// Goes on for as long as the grace lasts.
    fn bear(&mut self, last: Error) -> Result<(), Error> {
        let grace = self.sandboxer.config.grace;
        let since = *self.away.get_or_insert_with(Instant::now);
        if since.elapsed() < grace {
            return Ok(());
        }
        let fault = Fault::AwayTooLong { grace, last: Box::new(last) };
        Err(self.sandboxer.line.error("Wait", fault))
    }
}

/// Whether asking again would be of no use.
fn is_final(class: Class) -> bool {
    matches!(class, Class::Unimplemented | Class::InvalidArgument | Class::PermissionDenied)
}
