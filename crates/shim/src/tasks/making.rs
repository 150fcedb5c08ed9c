//! How a container is made, and how it is unmade when that fails half way.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Tasks;
use crate::{
    bundle::Bundle,
    cgroups,
    console::Console,
    error::Error,
    log::{Log, Stream},
    processes,
    runtime::{Made, Making, Runtime, binary::Binary, builtin::Builtin},
    state::Event,
    stdio::{self, Ends, Pumps},
    task::{Input, Task},
};

/// The longest id, in bytes: it is the name of files and directories of ours, with something
/// added.
const LONGEST_ID: usize = 200;

/// What to make a container from.
pub struct Wanted {
    pub id: String,
    pub bundle: PathBuf,
    /// A runc-like binary; without one, the runtime built in.
    pub runtime: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub terminal: bool,
    /// Keep stdin open for a later attach.
    pub stdin: bool,
    /// The first client that attaches to it ends it.
    pub stdin_once: bool,
    pub no_pivot: bool,
    pub systemd_cgroup: bool,
}

impl Wanted {
    /// Refuses what can never be, before anything is made.
    fn check(&self) -> Result<(), Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'+');
        let dots = matches!(self.id.as_str(), "." | "..") || self.id.starts_with('.');
        if self.id.is_empty() || self.id.len() > LONGEST_ID || dots || !self.id.bytes().all(plain) {
            return Err(Error::bad("the id", format!("{:?} is not fit for a file name", self.id)));
        }
        let paths = [("the bundle", Some(&self.bundle)), ("the runtime", self.runtime.as_ref())];
        for (what, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(Error::bad(what, format!("{path:?} is not an absolute path")));
            }
        }
        Ok(())
    }
}

/// What a container's stdio is on our side, before there is a container.
struct Ours {
    pumps: Pumps,
    stdin: Option<Input>,
    console: Option<Console>,
}

impl Tasks {
    /// Makes a container up to the point where it would run its program, and gives its pid. What
    /// was made of it is unmade if that fails.
    pub async fn create(&self, wanted: Wanted, within: Duration) -> Result<u32, Error> {
        wanted.check()?;
        let bundle = Bundle::read(wanted.bundle.clone())?;
        if bundle.terminal != wanted.terminal {
            let why = format!("it is {}, and {} in config.json", wanted.terminal, bundle.terminal);
            return Err(Error::bad("terminal", why));
        }
        let log = wanted.log.clone().map(Log::open).transpose()?.map(Arc::new);
        let runtime = self.runtime(&wanted);
        let task = Arc::new(Task::new(wanted.id.clone(), bundle, runtime, log));
        let _turn = task.turn.lock().await;
        self.enter(&task)?;
        let made = self.make(&task, &wanted, within).await;
        if let Err(error) = &made {
            // The first error is what matters; this one is told to the log.
            if let Err(undo) = self.unmake(&task, within).await {
                eprintln!("{}: {}, after: {}", task.id, undo.words(), error.words());
            }
            self.lock().remove(&task.id);
        }
        made
    }

    fn enter(&self, task: &Arc<Task>) -> Result<(), Error> {
        match self.lock().entry(task.id.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(Error::Exists(task.id.clone())),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(task.clone());
                Ok(())
            }
        }
    }

    fn runtime(&self, wanted: &Wanted) -> Arc<dyn Runtime> {
        let (systemd, reaper) = (wanted.systemd_cgroup, self.reaper.clone());
        match &wanted.runtime {
            None => Arc::new(Builtin::new(self.layout.clone(), reaper)),
            Some(program) => {
                let name = program.file_name().unwrap_or(program.as_os_str());
                let root = self.dir.join(super::RUNTIME).join(name);
                Arc::new(Binary::new(program.clone(), root, systemd, reaper))
            }
        }
    }

    async fn make(
        &self,
        task: &Arc<Task>,
        wanted: &Wanted,
        within: Duration,
    ) -> Result<u32, Error> {
        let (ends, mut ours) = self.stdio(task, wanted)?;
        let birth = self.reaper.expect();
        let making = Making {
            id: &task.id,
            bundle: &task.bundle,
            ends,
            console: ours.console.as_ref().map(Console::path),
            no_pivot: wanted.no_pivot,
            within,
        };
        let Made { pid, running } = task.runtime.make(making).await?;
        let mut ended = self.reaper.watch(pid);
        drop(birth);
        let kept = async {
            let init = processes::hold(pid).map_err(Error::kernel("holding the init"))?;
            task.keep(init, cgroups::of(&self.layout, pid), running);
            if let Some(console) = ours.console.take() {
                let terminal = console.receive(within).await?;
                keep_terminal(task, terminal, wanted, &mut ours)?;
            }
            Ok(())
        };
        if let Err(error) = kept.await {
            // Only what has not been reaped may be killed by its pid; the receiver knows.
            if ended.try_recv().is_err() {
                processes::kill_tree(pid);
            }
            return Err(error);
        }
        task.keep_stdin(ours.stdin);
        task.step(Event::Made { pid });
        tokio::spawn(task.clone().bury(ended, ours.pumps));
        Ok(pid)
    }

    /// Makes what the container shall have for stdio, and begins to write its log.
    fn stdio(&self, task: &Task, wanted: &Wanted) -> Result<(Ends, Ours), Error> {
        let mut ours = Ours { pumps: Pumps::default(), stdin: None, console: None };
        let mut ends = Ends::null()?;
        if wanted.terminal {
            ours.console = Some(Console::listen(self.console_path())?);
            return Ok((ends, ours));
        }
        let [stdout, stderr] = task.fans.clone();
        for (end, stream, fan) in
            [(&mut ends.stdout, Stream::Stdout, stdout), (&mut ends.stderr, Stream::Stderr, stderr)]
        {
            let (from, to) = stdio::pipe(&task.bundle)?;
            ours.pumps.start(from, stream, task.log.clone(), fan)?;
            *end = to;
        }
        if wanted.stdin {
            let (from, to) = stdio::pipe(&task.bundle)?;
            ends.stdin = from;
            ours.stdin = Some(Input { to, once: wanted.stdin_once });
        }
        Ok((ends, ours))
    }

    /// Short, since a runtime may have to fit it into a socket's address.
    pub(super) fn console_path(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.dir.join(format!("tty-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

/// What comes from the terminal is the container's stdout. What is typed goes the same way in, and
/// has no end but the terminal's.
fn keep_terminal(
    task: &Task,
    terminal: OwnedFd,
    wanted: &Wanted,
    ours: &mut Ours,
) -> Result<(), Error> {
    let another = || terminal.try_clone().map_err(Error::kernel("keeping the terminal"));
    let [stdout, _] = &task.fans;
    ours.pumps.start(another()?, Stream::Stdout, task.log.clone(), stdout.clone())?;
    if wanted.stdin {
        ours.stdin = Some(Input { to: another()?, once: false });
    }
    task.keep_terminal(terminal);
    Ok(())
}
