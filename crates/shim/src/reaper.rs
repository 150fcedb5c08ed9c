//! The one place that waits for children. Every process of every container of the pod is ours to
//! reap: init processes and commands as they end, and orphans, since we are a child subreaper.
//!
//! Nothing else in the process may call `waitpid`, or statuses would get lost. The copies of the
//! process that [`crate::fork`] makes have children of their own, and do.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use names::Nanos;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a child ended, and when we saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status, or 128 and the signal.
    pub code: i32,
    pub at: Nanos,
}

#[derive(Clone, Default)]
pub struct Reaper {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    watched: HashMap<u32, oneshot::Sender<Ended>>,
    /// Children that ended before anybody asked, kept while a birth is under way.
    unclaimed: HashMap<u32, Ended>,
    births: usize,
}

impl Reaper {
    /// Begins to reap, on a task of its own that never ends.
    pub fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let mut signals = signal(SignalKind::child())?;
        let state = reaper.clone();
        tokio::spawn(async move {
            loop {
                state.reap();
                if signals.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Says that a child may soon be born whose pid somebody else will tell us. Until the guard is
    /// dropped, the end of any child is remembered, so that it cannot come too early.
    pub fn expect(&self) -> Birth {
        self.lock().births += 1;
        Birth(self.clone())
    }

    /// Tells when this child has ended. It must be our child, and not be watched already. The
    /// sender is never dropped without having sent.
    pub fn watch(&self, pid: u32) -> oneshot::Receiver<Ended> {
        let (tell, told) = oneshot::channel();
        let mut state = self.lock();
        match state.unclaimed.remove(&pid) {
            Some(ended) => drop(tell.send(ended)),
            None => drop(state.watched.insert(pid, tell)),
        }
        told
    }

    fn reap(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(code) = code(status) {
                self.lock().ended(number(pid), Ended { code, at: names::now() });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the reaper")
    }
}

impl State {
    fn ended(&mut self, pid: u32, ended: Ended) {
        match self.watched.remove(&pid) {
            // Nobody may be listening any more.
            Some(tell) => drop(tell.send(ended)),
            None if self.births > 0 => drop(self.unclaimed.insert(pid, ended)),
            None => {}
        }
    }
}

/// While it lives, no child's end is forgotten. See [`Reaper::expect`].
pub struct Birth(Reaper);

impl Drop for Birth {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.births -= 1;
        if state.births == 0 {
            state.unclaimed = HashMap::new();
        }
    }
}

fn code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}

/// The pid as a number that is not negative, as everything but the kernel has it.
pub fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_comes_before_the_question_is_kept_for_a_birth_and_only_for_it() {
        let reaper = Reaper::default();
        let ended = Ended { code: 3, at: 5 };
        let birth = reaper.expect();
        reaper.lock().ended(7, ended);
        assert_eq!(reaper.watch(7).try_recv(), Ok(ended));
        reaper.lock().ended(8, ended);
        drop(birth);
        assert!(reaper.watch(8).try_recv().is_err(), "8 may be another process by now");
        reaper.lock().ended(9, ended);
        assert!(reaper.lock().unclaimed.is_empty());
    }
}
