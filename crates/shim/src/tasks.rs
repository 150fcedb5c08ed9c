//! The containers of the pod, by their ids: making them, and everything that is done to one of
//! them from outside. How a request comes in is not known here.

mod commands;
mod making;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use oci_spec::runtime::LinuxResources;
use protobuf::well_known_types::any::Any;
use rustix::process::Signal;
use shim_api::Exit;
use sys::cgroup::{Cgroup, Layout};
use tokio::time::timeout;

use crate::{
    cgroups,
    error::Error,
    handover::Desk,
    heap, processes,
    reaper::Reaper,
    runtime::{Starting, Unmaking},
    state::{Event, State},
    task::Task,
};

pub use commands::Streamed;
pub use making::Wanted;

/// How long a killed container may take to be buried: longer than its output is waited for.
const BURIAL: Duration = Duration::from_secs(5);

/// How long the init of a container that could not be started may take to end by itself.
const DEATH: Duration = Duration::from_secs(1);

/// The folder, in the shim's, of what runtimes remember.
pub const RUNTIME: &str = "runtime";

pub struct Tasks {
    /// The pod's directory.
    dir: PathBuf,
    reaper: Reaper,
    layout: Layout,
    desk: Arc<Desk>,
    tasks: Mutex<BTreeMap<String, Arc<Task>>>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new(dir: PathBuf, reaper: Reaper) -> Result<Self, Error> {
        let layout = Layout::detect().map_err(Error::kernel("looking for cgroups"))?;
        let desk = Desk::open(&dir)?;
        Ok(Self { dir, reaper, layout, desk, tasks: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Task>>> {
        self.tasks.lock().expect("nothing panics while it holds the tasks")
    }

    pub fn find(&self, id: &str) -> Result<Arc<Task>, Error> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
    }

    pub fn all(&self) -> Vec<Arc<Task>> {
        self.lock().values().cloned().collect()
    }

    /// An error that names the tasks, if there are any.
    pub fn empty(&self) -> Result<(), Error> {
        let ids: Vec<String> = self.lock().keys().cloned().collect();
        if ids.is_empty() { Ok(()) } else { Err(Error::NotEmpty(ids.join(", "))) }
    }

    /// Lets a created container run, and gives its pid.
    pub async fn start(&self, id: &str, within: Duration) -> Result<u32, Error> {
        let task = self.find(id)?;
        let _turn = task.turn.lock().await;
        let State::Created { pid } = task.state() else {
            return Err(task.wrong(task.state(), "created"));
        };
        let running = task.take_running();
        let starting = Starting { id, bundle: &task.bundle, running, within };
        let started = task.runtime.start(starting).await;
        if let Err(error) = started {
            self.end_start(&task).await;
            return Err(error);
        }
        task.step(Event::Started);
        heap::give_back();
        Ok(pid)
    }

    /// The init of a container that could not be started ends by itself, most often. That it has
    /// ended is then seen like any other end.
    async fn end_start(&self, task: &Task) {
        if timeout(DEATH, task.exit()).await.is_err() {
            // If it died meanwhile, that is what we want.
            let _ = task.signal(Signal::KILL);
            let _ = timeout(BURIAL, task.exit()).await;
        }
    }

    /// Waits for the end of a container.
    pub async fn wait(&self, id: &str) -> Result<Exit, Error> {
        let task = self.find(id)?;
        if task.state() == State::Making {
            drop(task.turn.lock().await);
            // If it could not be made, it has gone.
            self.find(id)?;
        }
        Ok(task.exit().await)
    }

    /// Sends a signal to the init, or to all processes of the container.
    pub fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let task = self.find(id)?;
        let signal = processes::signal(signal)?;
        match task.cgroup().filter(|_| all) {
            Some(cgroup) => processes::send_all(&cgroup, signal)
                .map(drop)
                .map_err(Error::kernel("sending a signal to the container's processes")),
            None => task.signal(signal),
        }
    }

    /// Sets a container's limits: all of them, or none.
    pub async fn update(
        &self,
        id: &str,
        resources: &LinuxResources,
        within: Duration,
    ) -> Result<(), Error> {
        let task = self.find(id)?;
        let _turn = task.turn.lock().await;
        let state = task.state();
        if state.alive().is_none() {
            return Err(task.wrong(state, "alive"));
        }
        task.runtime.update(id, task.cgroup().as_ref(), resources, within).await
    }

    pub fn metrics(&self, id: &str) -> Result<Any, Error> {
        let task = self.find(id)?;
        let cgroup = task.cgroup().ok_or_else(|| task.wrong(task.state(), "created"))?;
        cgroups::metrics(&self.layout, &cgroup)
    }

    pub fn pids(&self, id: &str) -> Result<Vec<u32>, Error> {
        let cgroup = self.find(id)?.cgroup();
        let pids = cgroup.map_or(Ok(Vec::new()), |cgroup| cgroup.pids());
        pids.map_err(Error::kernel("listing the container's processes"))
    }

    pub fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let task = self.find(id)?;
        if task.state().exit().is_some() {
            return Err(task.wrong(task.state(), "alive"));
        }
        task.log.as_ref().map_or(Ok(()), |log| log.reopen())
    }

    /// Kills a container if it lives, and unmakes it. Gives its pid and how it ended.
    pub async fn delete(&self, id: &str, within: Duration) -> Result<(u32, Option<Exit>), Error> {
        let task = self.find(id)?;
        let _turn = task.turn.lock().await;
        // Another may have deleted it while we waited for our turn.
        self.find(id)?;
        self.end(&task).await?;
        self.unmake(&task, within).await?;
        self.lock().remove(id);
        heap::give_back();
        let state = task.state();
        Ok((state.pid(), state.exit()))
    }

    /// Kills the container and waits until it is buried.
    async fn end(&self, task: &Task) -> Result<(), Error> {
        if task.state().alive().is_none() {
            return Ok(());
        }
        if let Err(error) = task.signal(Signal::KILL)
            && task.state().alive().is_some()
        {
            return Err(error);
        }
        let late = |_| Error::Late { doing: "killing the container", within: BURIAL };
        timeout(BURIAL, task.exit()).await.map(drop).map_err(late)
    }

    /// Takes away all that was made of a container whose init is dead: idempotent, and content
    /// with half of it.
    async fn unmake(&self, task: &Task, within: Duration) -> Result<(), Error> {
        let doing = "removing the container's cgroup";
        let cgroup = task.cgroup().or_else(|| self.planned_cgroup(task));
        if let Some(cgroup) = &cgroup {
            processes::kill_all(cgroup, BURIAL).await.map_err(Error::kernel(doing))?;
        }
        let unmaking = Unmaking { id: &task.id, bundle: &task.bundle, within };
        task.runtime.unmake(unmaking).await?;
        if let Some(path) = &task.bundle.cgroup {
            cgroups::remove_unified(&self.layout, path);
        }
        cgroup.map_or(Ok(()), |cgroup| cgroup.remove()).map_err(Error::kernel(doing))
    }

    /// Where the container's cgroup would be, if it did not live long enough to be asked. Not for
    /// systemd, which takes an empty one away by itself.
    fn planned_cgroup(&self, task: &Task) -> Option<Cgroup> {
        Cgroup::new(&self.layout, task.bundle.cgroup.as_deref()?).ok()
    }
}
