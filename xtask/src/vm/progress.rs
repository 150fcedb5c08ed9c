//! Tells on standard error what is being waited for, and for how long already.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// Between two words on it, on a terminal and in a log.
const ON_TERMINAL: Duration = Duration::from_secs(1);
const IN_LOG: Duration = Duration::from_secs(15);

pub(super) struct Progress {
    begun: Instant,
    /// Closed, it ends the ticking.
    ticking: Option<(Sender<()>, thread::JoinHandle<()>)>,
}

impl Progress {
    /// For what prints by itself.
    pub(super) fn begin(what: &str) -> Self {
        eprintln!("vm: {what}");
        Self { begun: Instant::now(), ticking: None }
    }

    /// For what is silent.
    pub(super) fn tick(what: &'static str) -> Self {
        let begun = Instant::now();
        eprintln!("vm: {what}");
        let (stop, stopped) = channel();
        let on_terminal = stderr().is_terminal();
        let between = if on_terminal { ON_TERMINAL } else { IN_LOG };
        let tick = move || {
            while stopped.recv_timeout(between) == Err(RecvTimeoutError::Timeout) {
                let (start, end) = if on_terminal { ("\r", "") } else { ("", "\n") };
                eprint!("{start}vm: {what}: {} s{end}", begun.elapsed().as_secs());
                let _ = stderr().flush();
            }
            if on_terminal {
                eprint!("\r\x1b[K");
            }
        };
        Self { begun, ticking: Some((stop, thread::spawn(tick))) }
    }

    pub(super) fn end(mut self, how: &str) {
        self.stop();
        eprintln!("vm: {how}, after {} s", self.begun.elapsed().as_secs());
    }

    fn stop(&mut self) {
        if let Some((stop, ticking)) = self.ticking.take() {
            drop(stop);
            let _ = ticking.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}
