//! The runtime built in: libcontainer makes containers, in a copy of this process; starting and
//! unmaking them, and running commands in them, is done here, since that is faster, and since
//! libcontainer's way of running a command would leave out seccomp, AppArmor and user namespaces.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use libcontainer::{
    container::{Container, builder::ContainerBuilder},
    notify_socket::{NOTIFY_FILE, NotifySocket},
    syscall::syscall::SyscallType,
};
use oci_spec::runtime::{LinuxResources, Spec};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::cgroup::Cgroup;
use tokio::time::timeout;

use super::{Exec, Made, Making, Runtime, Starting, Unmaking, report, watch};
use crate::{
    blame::Blame,
    bundle::{Bundle, CONFIG},
    cgroups,
    error::Error,
    join,
    payload::Payload,
    program::{self, Failure},
    reaper::Reaper,
    worker,
};

/// The most of a `passwd` file that is read, in bytes.
const PASSWD_LIMIT: u64 = 1 << 20;

pub struct Builtin {
    /// Where libcontainer keeps its state, a directory for each container.
    root: PathBuf,
    systemd_cgroup: bool,
    reaper: Reaper,
}

impl Builtin {
    pub fn new(root: PathBuf, systemd_cgroup: bool, reaper: Reaper) -> Self {
        Self { root, systemd_cgroup, reaper }
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Where the config is that libcontainer shall see, if it is not the bundle's own.
    fn adapted(&self, id: &str) -> PathBuf {
        self.root.join(format!("{id}.adapted"))
    }

    /// The rest of `make`, in a copy of this process, which owns these descriptors.
    fn build(&self, wanted: &Wanted<'_>, fds: [OwnedFd; 4]) -> Result<u32, String> {
        let bundle = match wanted.bundle.needs_adapting {
            true => adapt(wanted.bundle, &self.adapted(wanted.id))?,
            false => wanted.bundle.dir.clone(),
        };
        let [stdin, stdout, stderr, report] = fds;
        let build = || {
            ContainerBuilder::new(wanted.id.to_owned(), SyscallType::default())
                .with_executor(Payload::new(report.as_raw_fd()))
                .with_root_path(&self.root)?
                .with_console_socket(wanted.console)
                .with_stdin(stdin)
                .with_stdout(stdout)
                .with_stderr(stderr)
                .validate_id()?
                .as_init(&bundle)
                .with_systemd(self.systemd_cgroup)
                .with_detach(true)
                .with_no_pivot(wanted.no_pivot)
                .build()
        };
        let blame = Blame::listen();
        let container = build().map_err(|error| blame.explain(words(&error)))?;
        let pid = container.pid().ok_or("libcontainer gave no pid")?;
        u32::try_from(pid.as_raw()).map_err(|e| e.to_string())
    }

    /// Does something that only libcontainer can, in a copy of this process.
    async fn in_worker(
        &self,
        doing: &'static str,
        id: &str,
        within: Duration,
        work: impl FnOnce(&mut Container) -> Result<(), libcontainer::error::LibcontainerError>,
    ) -> Result<(), Error> {
        let dir = self.dir(id);
        let work = |_: [OwnedFd; 0]| {
            let blame = Blame::listen();
            let mut container = Container::load(dir).map_err(|error| words(&error))?;
            work(&mut container).map_err(|error| blame.explain(words(&error)))
        };
        worker::run(&self.reaper, doing, within, [], work).await
    }

    fn let_run(&self, id: &str) -> Result<(), Error> {
        NotifySocket::new(self.dir(id).join(NOTIFY_FILE))
            .notify_container_start()
            .map_err(|e| Error::Runtime { doing: "starting the container", words: words(&e) })
    }
}

/// What [`Builtin::build`] needs to know.
struct Wanted<'a> {
    id: &'a str,
    bundle: &'a Bundle,
    console: Option<&'a Path>,
    no_pivot: bool,
}

#[async_trait]
impl Runtime for Builtin {
    async fn make(&self, making: Making<'_>) -> Result<Made, Error> {
        let doing = "creating the container";
        fs::create_dir_all(&self.root).map_err(|e| Error::io(doing, &self.root, e))?;
        let (running, report) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::kernel(doing))?;
        let _birth = self.reaper.expect();
        let Making { id, bundle, ends, console, no_pivot, within } = making;
        let wanted = Wanted { id, bundle, console, no_pivot };
        let fds = [ends.stdin, ends.stdout, ends.stderr, report];
        let build = |fds| self.build(&wanted, fds);
        let pid = worker::run(&self.reaper, doing, within, fds, build).await?;
        Ok(Made { pid, running: Some(watch(running)?) })
    }

    async fn start(&self, starting: Starting<'_>) -> Result<(), Error> {
        let doing = "starting the container";
        let Starting { id, within, .. } = starting;
        if starting.bundle.hooks {
            self.in_worker(doing, id, within, Container::start).await?;
        } else {
            self.let_run(id)?;
        }
        let Some(running) = starting.running else { return Ok(()) };
        let told = timeout(within, report(&running))
            .await
            .map_err(|_| Error::Late { doing, within })?
            .map_err(Error::kernel(doing))?;
        refusal(doing, &told)
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

    async fn unmake(&self, unmaking: Unmaking<'_>) -> Result<(), Error> {
        let doing = "deleting the container";
        let Unmaking { id, bundle, within } = unmaking;
        let dir = self.dir(id);
        if !dir.exists() {
            return Ok(());
        }
        if bundle.hooks || self.systemd_cgroup {
            let gone = self.in_worker(doing, id, within, |container| container.delete(true)).await;
            // What it could not undo is undone below, as far as it is ours to.
            if let Err(error) = gone {
                eprintln!("{id}: {}", error.words());
            }
        }
        for dir in [dir, self.adapted(id)] {
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(doing, &dir, e));
                }
                _ => {}
            }
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

/// Writes, into `dir`, a config that makes libcontainer do what the bundle's own config means.
///
/// Without HOME, libcontainer asks the C library for it inside the container, which loads code
/// of the image into our process. And `noNewPrivileges: false` makes it load a seccomp filter
/// when it may no longer do that; leaving it out means the same and is done right. And a process
/// without `capabilities` would have all of them, where runc gives none.
fn adapt(bundle: &Bundle, dir: &Path) -> Result<PathBuf, String> {
    let mut spec = Spec::load(bundle.config()).map_err(|e| words(&e))?;
    spec.canonicalize_rootfs(&bundle.dir).map_err(|e| words(&e))?;
    let root = spec.root().as_ref().ok_or("the config has no root")?.path().clone();
    let process = spec.process_mut().as_mut().ok_or("the config has no process")?;
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    if process.capabilities().is_none() {
        process.set_capabilities(Some(program::no_capabilities()));
    }
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|variable| variable.starts_with("HOME=") && variable.len() > 5) {
        env.retain(|variable| variable != "HOME=");
        env.push(format!("HOME={}", home(&root, process.user().uid())));
        process.set_env(Some(env));
    }
    fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    spec.save(dir.join(CONFIG)).map_err(|e| words(&e))?;
    Ok(dir.to_owned())
}

fn home(rootfs: &Path, uid: u32) -> String {
    let read = || {
        let root = sys::beneath::open_root(rootfs)?;
        sys::rootfs_file::read_beneath(root.as_fd(), "etc/passwd".as_ref(), PASSWD_LIMIT)
    };
    // An image without a readable passwd has no homes.
    program::home(&read().ok().flatten().unwrap_or_default(), uid)
}

/// The message of an error and of those it came from, each once.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !all.contains(&next) {
            all = format!("{all}: {next}");
        }
        source = error.source();
    }
    all
}
