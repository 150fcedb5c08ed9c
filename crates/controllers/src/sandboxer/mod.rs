//! The `sandboxer` controller: sandboxes that another process keeps, asked over containerd's sandbox
//! service (`containerd.services.sandbox.v1`) on a unix socket: podbay-sandboxer, Kuasar, any other.
//!
//! What is said to it and what it answers is in [`wire`] and [`answer`], for both ends. A sandboxer that
//! is away delays nobody but those who ask it, and ends no sandbox.

pub mod answer;

mod fault;
mod line;
mod tasks;
mod watch;
pub mod wire;

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use names::{Class, ContainerId};
use sandbox_api::{Any, RESOURCES, RESOURCES_FIELD, TASKS, TASKS_FIELD, TASKS_URL, types, v1};

pub use fault::Fault;
use line::Line;
use tasks::{Entries, Tasks};

use crate::{
    Container, Controller, Error, Exit, PidNamespace, Place, Platform, Sandbox, Seccomp, Started,
    Status, error::Context,
};

/// Which sandboxer, and how patient we are with it.
#[derive(Clone, Debug)]
pub struct SandboxerConfig {
    /// What we call it, in errors.
    pub name: String,
    /// The unix socket that it serves at; `unix://` may stand before it.
    pub address: PathBuf,
    /// What it calls itself: it is told with each call, and one that serves several may need it.
    pub sandboxer: String,
    /// How long it may take for a call, beyond what the call itself asks for.
    pub deadline: Duration,
    /// How long it may take to start a sandbox.
    pub start_deadline: Duration,
    /// How long it may be away before its sandboxes are given up.
    pub grace: Duration,
    pub prepare: Prepare,
}

/// What a sandboxer must be told of a container before it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepare {
    /// Nothing: Task.Create says it all.
    #[default]
    None,
    /// All containers of the pod, in its extension `tasks`, as Kuasar needs it.
    ExtensionsTasks,
}

/// Sandboxes that a sandboxer keeps.
pub struct Sandboxer {
    config: SandboxerConfig,
    line: Line,
    tasks: Tasks,
}

impl Sandboxer {
    /// Connects to nothing yet.
    pub fn new(config: SandboxerConfig) -> Self {
        let line = Line::new(config.name.clone(), &config.address);
        Self { config, line, tasks: Tasks::default() }
    }

    fn sandboxer(&self) -> String {
        self.config.sandboxer.clone()
    }

    async fn ask_create(&self, sandbox: &Sandbox, home: &Home) -> Result<(), Error> {
        home.make(&sandbox.seccomp)?;
        let request = wire::create(sandbox, &self.config.sandboxer, &home.profile())
            .map_err(|rejected| self.line.error("Create", Fault::Untellable(rejected)))?;
        let ask = |mut client: line::Client, request| async move { client.create(request).await };
        self.line.call("Create", self.config.deadline, request, ask).await.map(drop)
    }

    async fn ask_wait(&self, place: &Place) -> Result<Exit, Error> {
        let request = v1::ControllerWaitRequest {
            sandbox_id: place.id.to_string(),
            sandboxer: self.sandboxer(),
        };
        let ask = |mut client: line::Client, request| async move { client.wait(request).await };
        Ok(answer::exit(self.line.long_call("Wait", request, ask).await?))
    }

    async fn ask_update(
        &self,
        place: &Place,
        (extension, field): (&str, &str),
        value: Any,
    ) -> Result<(), Error> {
        let request = v1::ControllerUpdateRequest {
            sandbox_id: place.id.to_string(),
            sandboxer: self.sandboxer(),
            sandbox: Some(types::Sandbox {
                sandbox_id: place.id.to_string(),
                extensions: [(extension.to_owned(), value)].into(),
                sandboxer: self.sandboxer(),
                ..Default::default()
            }),
            fields: vec![field.to_owned()],
        };
        let ask = |mut client: line::Client, request| async move { client.update(request).await };
        self.line.call("Update", self.config.deadline, request, ask).await.map(drop)
    }

    /// Changes the pod's list of containers, if the sandboxer has heard of the change.
    async fn tell_tasks(
        &self,
        place: &Place,
        change: impl FnOnce(&mut Entries),
    ) -> Result<(), Error> {
        let list = self.tasks.of(&place.id);
        let mut list = list.lock().await;
        let mut next = match &*list {
            Some(entries) => entries.clone(),
            None => tasks::on_disk(place),
        };
        change(&mut next);
        let value = Any { type_url: TASKS_URL.to_owned(), value: tasks::list(&next) };
        self.ask_update(place, (TASKS, TASKS_FIELD), value).await?;
        *list = Some(next);
        Ok(())
    }
}

#[async_trait]
impl Controller for Sandboxer {
    async fn create(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let home = Home::of(&sandbox.place);
        let created = self.ask_create(sandbox, &home).await;
        if created.as_ref().is_err_and(is_unheard) {
            // Nothing is to be undone there.
            home.remove()?;
        }
        created
    }

    async fn start(&self, place: &Place) -> Result<Started, Error> {
        let request = v1::ControllerStartRequest {
            sandbox_id: place.id.to_string(),
            sandboxer: self.sandboxer(),
        };
        let ask = |mut client: line::Client, request| async move { client.start(request).await };
        let answer = self.line.call("Start", self.config.start_deadline, request, ask).await?;
        answer::started(answer).map_err(|fault| self.line.error("Start", fault))
    }

    async fn platform(&self, place: &Place) -> Result<Platform, Error> {
        let request = v1::ControllerPlatformRequest {
            sandbox_id: place.id.to_string(),
            sandboxer: self.sandboxer(),
        };
        let ask = |mut client: line::Client, request| async move { client.platform(request).await };
        let answer = self.line.call("Platform", self.config.deadline, request, ask).await?;
        answer::platform(answer).map_err(|fault| self.line.error("Platform", fault))
    }

    async fn stop(&self, place: &Place, grace: Duration) -> Result<(), Error> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let request = v1::ControllerStopRequest {
            sandbox_id: place.id.to_string(),
            timeout_secs: u32::try_from(seconds).unwrap_or(u32::MAX),
            sandboxer: self.sandboxer(),
        };
        let within = self.config.deadline.saturating_add(grace);
        let ask = |mut client: line::Client, request| async move { client.stop(request).await };
        done(self.line.call("Stop", within, request, ask).await.map(drop))
    }

    async fn wait(&self, place: &Place) -> Result<Exit, Error> {
        watch::Watch::new(self, place).end().await
    }

    async fn status(&self, place: &Place) -> Result<Status, Error> {
        let request = v1::ControllerStatusRequest {
            sandbox_id: place.id.to_string(),
            verbose: false,
            sandboxer: self.sandboxer(),
        };
        let ask = |mut client: line::Client, request| async move { client.status(request).await };
        match self.line.call("Status", self.config.deadline, request, ask).await {
            Err(error) if error.class() == Class::NotFound => Ok(Status::Gone),
            answer => answer::status(answer?).map_err(|fault| self.line.error("Status", fault)),
        }
    }

    async fn shutdown(&self, place: &Place) -> Result<(), Error> {
        let home = Home::of(place);
        let request = v1::ControllerShutdownRequest {
            sandbox_id: place.id.to_string(),
            sandboxer: self.sandboxer(),
        };
        let ask = |mut client: line::Client, request| async move { client.shutdown(request).await };
        let answer = self.line.call("Shutdown", self.config.deadline, request, ask).await;
        match done(answer.map(drop)) {
            // One that was never asked for anything has nothing, wherever it is.
            Err(error) if is_unheard(&error) && !home.exists() => {}
            told => told?,
        }
        self.tasks.forget(&place.id);
        home.remove()
    }

    async fn update(
        &self,
        place: &Place,
        resources: &oci_spec::runtime::LinuxResources,
    ) -> Result<(), Error> {
        let value = serde_json::to_vec(resources).on("telling resources of", &place.cgroup)?;
        let any = Any { type_url: shim_api::RESOURCES_URL.to_owned(), value };
        self.ask_update(place, (RESOURCES, RESOURCES_FIELD), any).await
    }

    async fn metrics(&self, place: &Place) -> Result<shim_api::Stats, Error> {
        let request = v1::ControllerMetricsRequest {
            sandbox_id: place.id.to_string(),
            sandboxer: self.sandboxer(),
        };
        let ask = |mut client: line::Client, request| async move { client.metrics(request).await };
        let answer = self.line.call("Metrics", self.config.deadline, request, ask).await?;
        answer::stats(answer).map_err(|fault| self.line.error("Metrics", fault))
    }

    /// The service has no call for it. Ours does it when it is asked how the sandbox is; one of another
    /// make may know better than we do how its tasks are served.
    async fn supervise(&self, place: &Place) -> Result<(), Error> {
        self.status(place).await.map(drop)
    }

    async fn prepare(&self, place: &Place, container: &Container) -> Result<(), Error> {
        if self.config.prepare == Prepare::None {
            return Ok(());
        }
        let entry = tasks::entry(container)?;
        let add = |entries: &mut Entries| drop(entries.insert(container.id.clone(), entry));
        self.tell_tasks(place, add).await
    }

    /// Told also of a container that is not in the list: a prepare that failed may have been heard.
    async fn purge(&self, place: &Place, container: &ContainerId) -> Result<(), Error> {
        if self.config.prepare == Prepare::None {
            return Ok(());
        }
        let remove = |entries: &mut Entries| drop(entries.remove(container));
        done(self.tell_tasks(place, remove).await)
    }

    /// What holds its sandboxes is the sandboxer's own affair.
    fn runs_program(&self, _pid: PidNamespace) -> bool {
        false
    }
}

/// Whether the sandboxer cannot have heard of the call.
fn is_unheard(error: &Error) -> bool {
    let Error::Sandboxer { fault, .. } = error else { return false };
    matches!(**fault, Fault::Away { .. } | Fault::Untellable(_))
}

/// What a sandboxer does not know is ended, and removed.
fn done(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(error) if error.class() == Class::NotFound => Ok(()),
        answer => answer,
    }
}

/// Our folder in that of the pod. It is there before the sandboxer hears of the sandbox, so that
/// without it there is nothing to be undone.
struct Home(PathBuf);

impl Home {
    fn of(place: &Place) -> Self {
        Self(place.dir.join("sandboxer"))
    }

    /// The service takes seccomp profiles by their file.
    fn profile(&self) -> PathBuf {
        self.0.join("seccomp.json")
    }

    fn exists(&self) -> bool {
        self.0.exists()
    }

    fn make(&self, seccomp: &Seccomp) -> Result<(), Error> {
        fs::create_dir_all(&self.0).on("making the folder", &self.0)?;
        match seccomp {
            Seccomp::Profile(bytes) => write(&self.profile(), bytes),
            Seccomp::Unconfined | Seccomp::RuntimeDefault => Ok(()),
        }
    }

    fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).on("removing", &self.0),
            _ => Ok(()),
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let opened =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).on("writing", path)
}
