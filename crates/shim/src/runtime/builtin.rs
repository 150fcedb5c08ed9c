//! The runtime built in: [`crate::init`] makes containers, and [`crate::join`] runs commands in them.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use async_trait::async_trait;
use oci_spec::runtime::{Hook, Hooks, LinuxResources, Spec};
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};
use sys::cgroup::{Cgroup, Layout};
use tokio::time::timeout;

use super::{Exec, Made, Making, Runtime, Starting, Unmaking, report, watch};
use crate::{
    bundle::Bundle,
    cgroups,
    error::Error,
    hooks,
    init::{self, Given, Wanted},
    join,
    program::Failure,
    reaper::Reaper,
    worker,
};

/// Which hooks of all.
type Pick = fn(&Hooks) -> &Option<Vec<Hook>>;

pub struct Builtin {
    layout: Layout,
    reaper: Reaper,
}

impl Builtin {
    pub fn new(layout: Layout, reaper: Reaper) -> Self {
        Self { layout, reaper }
    }

    /// Runs hooks of the config, in a copy of this process.
    async fn run_hooks(
        &self,
        doing: &'static str,
        (id, bundle): (&str, &Bundle),
        within: Duration,
        (status, pick): (&'static str, Pick),
    ) -> Result<(), Error> {
        if !bundle.hooks {
            return Ok(());
        }
        let work = |_: [OwnedFd; 0]| {
            let spec = Spec::load(bundle.config()).map_err(|e| e.to_string())?;
            let state = hooks::state(id, &bundle.dir, &spec, status, None);
            let hooks = spec.hooks().as_ref().and_then(|all| pick(all).as_deref());
            hooks::run(hooks, &state).map_err(|failure| failure.words)
        };
        worker::run(&self.reaper, doing, within, [], work).await
    }
}

#[async_trait]
impl Runtime for Builtin {
    async fn make(&self, making: Making<'_>) -> Result<Made, Error> {
        let doing = "creating the container";
        let (ours, its) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(Error::kernel(doing))?;
        let _birth = self.reaper.expect();
        let Making { id, bundle, ends, console, no_pivot, within } = making;
        let wanted = Wanted { id, bundle, console, no_pivot, layout: &self.layout };
        let make = |[stdin, stdout, stderr, channel]: [OwnedFd; 4]| {
            let given = Given { stdio: [stdin, stdout, stderr], channel };
            init::make(&wanted, given).map_err(|failure| failure.words)
        };
        let fds = [ends.stdin, ends.stdout, ends.stderr, its];
        let pid = worker::run(&self.reaper, doing, within, fds, make).await?;
        Ok(Made { pid, running: Some(watch(ours)?) })
    }

    async fn start(&self, starting: Starting<'_>) -> Result<(), Error> {
        let doing = "starting the container";
        let Starting { id, bundle, within, running } = starting;
        let Some(running) = running else { return Ok(()) };
        // If the init is gone, that is what there is to be read.
        let _ = init::let_run(&running);
        let told = timeout(within, report(&running))
            .await
            .map_err(|_| Error::Late { doing, within })?
            .map_err(Error::kernel(doing))?;
        refusal(doing, &told)?;
        self.run_hooks(doing, (id, bundle), within, ("running", Hooks::poststart)).await
    }

    async fn exec(&self, exec: Exec<'_>) -> Result<u32, Error> {
        let doing = "running the command in the container";
        let (running, report_end) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::kernel(doing))?;
        let pid = join::spawn(&exec, report_end.as_fd()).map_err(Error::kernel(doing))?;
        drop(report_end);
        let running = watch(running)?;
        let within = exec.within;
        match timeout(within, report(&running)).await {
            Err(_) => {
                crate::processes::kill_tree(pid);
                Err(Error::Late { doing, within })
            }
            Ok(told) => refusal(doing, &told.map_err(Error::kernel(doing))?).map(|()| pid),
        }
    }

    async fn update(
        &self,
        _id: &str,
        cgroup: Option<&Cgroup>,
        resources: &LinuxResources,
        _within: Duration,
    ) -> Result<(), Error> {
        let doing = "setting the container's limits";
        let none = || io::Error::new(io::ErrorKind::NotFound, "it has no cgroup of its own");
        let cgroup = cgroup.ok_or_else(none).map_err(Error::kernel(doing))?;
        cgroup.apply(&cgroups::limits(resources)).map_err(Error::kernel(doing))
    }

    /// There is nothing of it left but its cgroup, which is not only this runtime's to remove.
    async fn unmake(&self, unmaking: Unmaking<'_>) -> Result<(), Error> {
        let doing = "deleting the container";
        let Unmaking { id, bundle, within } = unmaking;
        let ran = self.run_hooks(doing, (id, bundle), within, ("stopped", Hooks::poststop)).await;
        if let Err(error) = ran {
            // As the runtime specification has it: it is told, and the deletion goes on.
            eprintln!("{id}: {}", error.words());
        }
        Ok(())
    }
}

/// What the pipe of a program says: nothing, if it runs.
fn refusal(doing: &'static str, told: &[u8]) -> Result<(), Error> {
    if told.is_empty() {
        return Ok(());
    }
    let failure = serde_json::from_slice(told)
        .unwrap_or_else(|_| Failure::of_runtime(String::from_utf8_lossy(told).into_owned()));
    match failure {
        Failure { program: true, words, .. } => Err(Error::NotExecutable(words)),
        Failure { words, .. } => Err(Error::Runtime { doing, words }),
    }
}
