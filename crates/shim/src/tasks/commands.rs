//! Commands in containers, and clients that attach to a container itself.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use shim_api::{Size, supervisor::HandOver};
use tokio::sync::Notify;

use super::Tasks;
use crate::{
    console::Console,
    error::Error,
    exec::{self, Command, Listener, Terms, streamed},
    runtime::{Exec, Terminal},
    stdio::{self, Ends, Wanted},
    task::{Joining, Task},
};

/// How long a command may take to begin.
const BEGINNING: Duration = Duration::from_secs(30);

/// A command whose streams go to the caller.
pub struct Streamed {
    pub id: String,
    /// By which it can be killed.
    pub name: String,
    pub args: Vec<String>,
    pub terminal: Option<Size>,
    /// Without a terminal, which is all of them.
    pub wanted: Wanted,
}

impl Tasks {
    /// Runs a command in a running container to its end.
    pub async fn exec(
        &self,
        id: &str,
        name: String,
        args: &[String],
        terms: &Terms,
        listener: &dyn Listener,
    ) -> Result<(), Error> {
        let task = self.running(id, args)?;
        // Before it begins, since it may be ended while it does.
        let _enlisted = task.enlist(name, terms.kill.clone());
        let (stdout, out) = stdio::pipe(&task.bundle)?;
        let (stderr, err) = stdio::pipe(&task.bundle)?;
        let ends = Ends { stdin: stdio::null()?, stdout: out, stderr: err };
        let command = self.launch(&task, args, ends, None, terms.left(BEGINNING)).await?;
        exec::follow(command, [stdout, stderr], terms, listener).await
    }

    /// Begins a command in a running container, and says where its streams are held out.
    pub async fn exec_streamed(
        &self,
        streamed: Streamed,
        within: Duration,
    ) -> Result<HandOver, Error> {
        let Streamed { id, name, args, terminal: size, wanted } = streamed;
        let task = self.running(&id, &args)?;
        let kill = Arc::new(Notify::new());
        let enlisted = task.enlist(name, kill.clone());
        let offer = self.desk.offer()?;
        let words = offer.words();
        let wanted = if size.is_none() { wanted } else { Wanted::default() };
        let (ends, mut streams) = wanted.pipes(&task.bundle)?;
        let console = size.map(|_| Console::listen(self.console_path())).transpose()?;
        let terminal = console.as_ref().zip(size);
        let terminal = terminal.map(|(console, size)| Terminal { console: console.path(), size });
        let within = within.min(BEGINNING);
        let mut command = self.launch(&task, &args, ends, terminal, within).await?;
        if let (Some(console), Some(size)) = (console, size) {
            match receive(&console, size, within).await {
                Ok(terminal) => streams.terminal = Some(terminal),
                Err(error) => {
                    command.kill().await;
                    return Err(error);
                }
            }
        }
        tokio::spawn(async move {
            streamed::follow(command, streams, offer, kill).await;
            drop(enlisted);
        });
        Ok(words)
    }

    /// Says where streams of a container's own are held out.
    pub fn attach(&self, id: &str, wanted: Wanted) -> Result<HandOver, Error> {
        let task = self.find(id)?;
        if task.state().alive().is_none() {
            return Err(task.wrong(task.state(), "alive"));
        }
        let joining = Joining::new(wanted, task.bundle.terminal)?;
        let offer = self.desk.offer()?;
        let words = offer.words();
        tokio::spawn(task.join(joining, offer));
        Ok(words)
    }

    /// The container in which this shall run.
    fn running(&self, id: &str, args: &[String]) -> Result<Arc<Task>, Error> {
        if args.first().is_none_or(String::is_empty) {
            return Err(Error::bad("the command", "it is empty"));
        }
        let task = self.find(id)?;
        task.running().map(|_| task)
    }

    /// Begins a command.
    async fn launch(
        &self,
        task: &Task,
        args: &[String],
        ends: Ends,
        terminal: Option<Terminal<'_>>,
        within: Duration,
    ) -> Result<Command, Error> {
        let (init, cgroup) = (task.running()?, task.cgroup());
        let (id, bundle, in_cgroup) = (&task.id, &task.bundle, cgroup.as_ref());
        let exec = Exec { id, bundle, init, cgroup: in_cgroup, args, ends, terminal, within };
        let birth = self.reaper.expect();
        let pid = task.runtime.exec(exec).await?;
        let ended = self.reaper.watch(pid);
        drop(birth);
        Ok(Command::new(pid, cgroup, ended))
    }
}

/// The terminal that the runtime has made. Not every one has given it its size.
async fn receive(console: &Console, size: Size, within: Duration) -> Result<OwnedFd, Error> {
    let terminal = console.receive(within).await?;
    stdio::resize(&terminal, size.width, size.height)?;
    Ok(terminal)
}
