//! One container: what it is made of, its state, and its end.

mod attach;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use shim_api::Exit;
use sys::cgroup::Cgroup;
use tokio::{
    sync::{Mutex as Turn, Notify, oneshot, watch},
    time::timeout,
};

use crate::{
    bundle::Bundle,
    error::Error,
    exit,
    fan::Fan,
    log::Log,
    processes,
    reaper::Ended,
    runtime::Runtime,
    source::Source,
    state::{Event, State},
    stdio::Pumps,
};

pub use attach::Joining;

/// How long output is waited for after the init has died, while a process that it left behind
/// holds the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// How long processes that an init left behind may take to die.
const DEATH: Duration = Duration::from_secs(1);

pub struct Task {
    pub id: String,
    pub bundle: Bundle,
    pub runtime: Arc<dyn Runtime>,
    pub log: Option<Arc<Log>>,
    /// Held by whoever makes, starts or unmakes it. Signals and questions need not wait for that.
    pub turn: Turn<()>,
    /// Who listens to its stdout, or its terminal, and to its stderr.
    pub fans: [Arc<Fan>; 2],
    life: watch::Sender<State>,
    held: Mutex<Held>,
}

/// What we hold of a container while it lives.
#[derive(Default)]
struct Held {
    init: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// Until it is started: see [`crate::runtime::Made`].
    running: Option<Source>,
    stdin: Option<Input>,
    terminal: Option<OwnedFd>,
    /// What ends the commands that run in it, by their names.
    execs: HashMap<String, Arc<Notify>>,
}

/// Our end of a container's stdin.
pub struct Input {
    pub to: OwnedFd,
    /// It is for the first client that attaches, and ends with it.
    pub once: bool,
}

impl Task {
    pub fn new(
        id: String,
        bundle: Bundle,
        runtime: Arc<dyn Runtime>,
        log: Option<Arc<Log>>,
    ) -> Self {
        let life = watch::Sender::new(State::Making);
        let (turn, fans, held) = (Turn::new(()), Default::default(), Mutex::default());
        Self { id, bundle, runtime, log, turn, fans, life, held }
    }

    pub fn state(&self) -> State {
        *self.life.borrow()
    }

    pub fn step(&self, event: Event) {
        self.life.send_modify(|state| *state = state.on(event));
    }

    /// Waits for its end.
    pub async fn exit(&self) -> Exit {
        let mut life = self.life.subscribe();
        let ended = life.wait_for(|state| state.exit().is_some()).await;
        ended.ok().and_then(|state| state.exit()).expect("the sender lives as long as the task")
    }

    /// Refuses what cannot be done to a container that is not running.
    pub fn running(&self) -> Result<u32, Error> {
        match self.state() {
            State::Running { pid } => Ok(pid),
            state => Err(self.wrong(state, "running")),
        }
    }

    pub fn wrong(&self, state: State, wanted: &'static str) -> Error {
        Error::WrongState { id: self.id.clone(), is: state.name(), wanted }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds a task")
    }

    /// Takes over what was made.
    pub fn keep(&self, init: OwnedFd, cgroup: Option<Cgroup>, running: Option<Source>) {
        let mut held = self.held();
        (held.init, held.cgroup, held.running) = (Some(init), cgroup, running);
    }

    pub fn keep_stdin(&self, stdin: Option<Input>) {
        self.held().stdin = stdin;
    }

    pub fn keep_terminal(&self, terminal: OwnedFd) {
        self.held().terminal = Some(terminal);
    }

    pub fn take_running(&self) -> Option<Source> {
        self.held().running.take()
    }

    /// Does something with the terminal. `None` if there is none.
    pub fn with_terminal<T>(&self, act: impl FnOnce(&OwnedFd) -> T) -> Option<T> {
        self.held().terminal.as_ref().map(act)
    }

    /// Ends the container's stdin, for good.
    pub fn close_stdin(&self) {
        self.held().stdin = None;
    }

    pub fn cgroup(&self) -> Option<Cgroup> {
        self.held().cgroup.clone()
    }

    /// Sends a signal to the init.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<(), Error> {
        self.signal_init(signal)?;
        // What is frozen does not even die.
        if signal == rustix::process::Signal::KILL
            && let Some(cgroup) = self.cgroup()
        {
            cgroup.thaw();
        }
        Ok(())
    }

    fn signal_init(&self, signal: rustix::process::Signal) -> Result<(), Error> {
        let held = self.held();
        let Some(init) = held.init.as_ref().filter(|_| self.state().alive().is_some()) else {
            return Err(self.wrong(self.state(), "alive"));
        };
        processes::send(init, signal).map_err(Error::kernel("sending a signal"))
    }

    /// Names what ends a command, until the guard is dropped.
    pub fn enlist(self: &Arc<Self>, name: String, kill: Arc<Notify>) -> Enlisted {
        self.held().execs.insert(name.clone(), kill);
        Enlisted { task: self.clone(), name }
    }

    /// Ends a command. One that is unknown has ended.
    pub fn kill_exec(&self, name: &str) {
        if let Some(kill) = self.held().execs.get(name) {
            kill.notify_one();
        }
    }

    /// Sees the container to its grave: waits for the init, then for the output, then puts the end
    /// on record, and only then tells.
    pub async fn bury(self: Arc<Self>, init: oneshot::Receiver<Ended>, mut pumps: Pumps) {
        let Ok(Ended { code, at }) = init.await else { return };
        let oom = self.oom();
        self.close_stdin();
        if !self.bundle.own_pids
            && let Some(cgroup) = self.cgroup()
            && let Err(error) = processes::kill_all(&cgroup, DEATH).await
        {
            eprintln!("{}: killing what the container's init left behind: {error}", self.id);
        }
        if timeout(DRAIN, pumps.drained()).await.is_err() {
            pumps.stop().await;
        }
        let exit = Exit { code, at, oom };
        if let Err(error) = exit::record(&self.bundle.dir, &exit) {
            eprintln!("{}: {}", self.id, error.words());
        }
        let mut held = self.held();
        (held.init, held.terminal) = (None, None);
        drop(held);
        self.step(Event::Died(exit));
    }

    /// Whether the OOM killer struck. Asked before anything takes the cgroup away.
    fn oom(&self) -> bool {
        let kills = self.cgroup().map(|cgroup| cgroup.oom_kills());
        match kills {
            Some(Err(error)) => {
                eprintln!("{}: cannot tell whether memory ran out: {error}", self.id);
                false
            }
            Some(Ok(kills)) => kills > 0,
            None => false,
        }
    }
}

/// A command that can be ended by its name.
pub struct Enlisted {
    task: Arc<Task>,
    name: String,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.task.held().execs.remove(&self.name);
    }
}
