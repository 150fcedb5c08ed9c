//! The shims of this daemon: supervisor processes, started here, found again after a restart, and
//! ended. What a shim is asked to do is not known here, but that its tasks of a pod go with the pod.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::UnixListener,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use names::PodId;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};
use shim_api::{Life, Shim};
use tokio::task::JoinHandle;

use crate::{Error, Place, error::Context};

/// How long a killed shim may take to be gone. Only a process stuck in the kernel takes longer.
const DEATH: Duration = Duration::from_secs(10);

/// How long a shim may take to answer that it ends.
const ASKED: Duration = Duration::from_secs(5);

/// The descriptor on which a shim finds its listening socket.
const LISTENER: i32 = 3;

/// What the shim of the whole node is called where a pod's is called by the pod's id.
const NODE: &str = "node";

/// How many pods a shim serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// One: what happens to it happens to no other pod.
    Pod,
    /// All of them: it costs the memory of one.
    Node,
}

/// Starts, finds and ends shims.
#[derive(Clone)]
pub struct Shims {
    program: Arc<Program>,
    /// How many files it may have open, as it was when this was made.
    files: Rlimit,
    sockets: PathBuf,
    grouping: Grouping,
    known: Arc<Mutex<HashMap<String, Shim>>>,
    /// Those whose program is being started.
    starting: Arc<Mutex<HashMap<String, JoinHandle<()>>>>,
    /// Held while the shim of the node is looked for, started, or ended.
    node: Arc<tokio::sync::Mutex<()>>,
}

/// What is executed as a shim.
enum Program {
    /// On a mount of its own that is read-only: what a container gets of it cannot be written to
    /// (CVE-2019-5736). A shim that finds itself elsewhere executes itself again from such a mount.
    Sealed {
        path: PathBuf,
        program: OwnedFd,
    },
    Path(PathBuf),
}

impl Program {
    fn new(path: PathBuf) -> Self {
        match seal(&path) {
            Ok(program) => Self::Sealed { path, program },
            Err(error) => {
                tracing::debug!(program = %path.display(), %error, "the shim must seal itself");
                Self::Path(path)
            }
        }
    }

    /// What its users call it.
    fn path(&self) -> &Path {
        match self {
            Self::Sealed { path, .. } | Self::Path(path) => path,
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Sealed { path, program } => {
                let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
                command.arg0(path);
                command
            }
            Self::Path(path) => Command::new(path),
        }
    }
}

fn seal(path: &Path) -> std::io::Result<OwnedFd> {
    let program = sys::mount::bind(fs::File::open(path)?, false)?;
    let sealed = sys::mount::Attributes { read_only: true, ..Default::default() };
    program.set(sealed, false)?;
    // Beyond the descriptors that a shim is started with, which take these numbers before it is.
    Ok(rustix::io::fcntl_dupfd_cloexec(program.as_fd(), 2 * LISTENER)?)
}

/// A shim, by what it is called in its own command line, and its folder.
struct Home {
    name: String,
    dir: PathBuf,
}

impl Shims {
    /// `program` is the shim's; sockets are made in the folder `sockets`, which must exist.
    pub fn new(program: PathBuf, sockets: PathBuf, grouping: Grouping) -> Self {
        let program = Arc::new(Program::new(program));
        Self {
            program,
            files: getrlimit(Resource::Nofile),
            sockets,
            grouping,
            known: Arc::default(),
            starting: Arc::default(),
            node: Arc::default(),
        }
    }

    /// The pod's shim, whether it lives or not.
    pub fn of(&self, pod: &PodId) -> Shim {
        let name = self.name(pod);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(name.to_owned()).or_insert_with(|| Shim::new(self.socket(name))).clone()
    }

    /// Whether the pod's shim was started and not ended. It may have been killed.
    pub(crate) fn is_kept(&self, pod: &PodId) -> bool {
        self.socket(self.name(pod)).exists()
    }

    fn name<'a>(&self, pod: &'a PodId) -> &'a str {
        match self.grouping {
            Grouping::Pod => pod.as_str(),
            Grouping::Node => NODE,
        }
    }

    fn home(&self, place: &Place) -> Home {
        let dir = match self.grouping {
            Grouping::Pod => place.dir.clone(),
            Grouping::Node => self.sockets.join(NODE),
        };
        Home { name: self.name(&place.id).to_owned(), dir }
    }

    /// Where a shim listens. The name is short, for the 107 bytes that a path may have, and its 80
    /// bits do not collide.
    fn socket(&self, name: &str) -> PathBuf {
        self.sockets.join(format!("{}.sock", &name[..name.len().min(20)]))
    }

    /// Starts the pod's shim, if the node's does not serve it already. Its socket listens when this
    /// returns; whoever calls may have to wait until the program is there. If it does not start, that
    /// is logged, nobody listens any more, and [`Shims::supervise`] will say why.
    pub async fn spawn(&self, place: &Place) -> Result<Shim, Error> {
        match self.grouping {
            Grouping::Pod => self.start_beside(self.home(place))?,
            Grouping::Node => self.supervise(place).await?,
        }
        Ok(self.of(&place.id))
    }

    fn start_beside(&self, home: Home) -> Result<(), Error> {
        let socket = self.listen(&home.name)?;
        let (this, name) = (self.clone(), home.name.clone());
        let start = move || {
            if let Err(error) = this.start(&home, socket) {
                let error = names::chain(&error);
                tracing::error!(shim = home.name, error, "the shim cannot be started");
            }
        };
        let start = tokio::task::spawn_blocking(start);
        self.starting.lock().unwrap_or_else(PoisonError::into_inner).insert(name, start);
        Ok(())
    }

    /// Waits until a shim that is being started has been.
    async fn started(&self, home: &Home) {
        let start = self.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&home.name);
        if let Some(start) = start {
            // What went wrong was told when it did.
            let _ = start.await;
        }
    }

    /// Starts the pod's shim if it does not live.
    pub async fn supervise(&self, place: &Place) -> Result<(), Error> {
        let home = self.home(place);
        let _turn = self.node.lock().await;
        self.started(&home).await;
        if find(&home).is_empty() {
            fs::create_dir_all(&home.dir).on("making the folder", &home.dir)?;
            remove(&home.dir.join(Life::FILE))?;
            let socket = self.listen(&home.name)?;
            self.start(&home, socket)?;
        }
        Ok(())
    }

    fn start(&self, home: &Home, socket: OwnedFd) -> Result<(), Error> {
        let log_path = home.dir.join("shim.log");
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
        let mut command = self.program.command();
        command
            .args(["--pod", &home.name, "--dir"])
            .arg(&home.dir)
            .env_clear()
            .envs(std::env::vars_os().filter(|(key, _)| key == "PATH" || key == "PODBAY_SHIM_LOG"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.on("opening", log_path)?);
        let mapping = FdMapping { parent_fd: socket, child_fd: LISTENER };
        command.fd_mappings(vec![mapping]).expect("one mapping collides with nothing");
        let child = tokio::process::Command::from(command).spawn();
        let mut child = child.on("starting the shim", self.program.path())?;
        self.limit(&child).on("limiting the shim", self.program.path())?;
        // It is ours to bury for as long as we live; its end is told by its socket.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    /// What a shim has, its containers have: not what this process has raised for itself.
    fn limit(&self, child: &tokio::process::Child) -> std::io::Result<()> {
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let files = Rlimit { ..self.files };
        // One that has ended at once has nothing to be limited.
        pid.map_or(Ok(()), |pid| prlimit(Some(pid), Resource::Nofile, files).map(drop))?;
        Ok(())
    }

    fn listen(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = self.socket(name);
        remove(&path)?;
        let listener = UnixListener::bind(&path).on("listening at", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).on("restricting", &path)?;
        Ok(listener.into())
    }

    /// Ends the pod's shim, if there is one, and removes its socket. The shim is asked first, and
    /// killed if it will not hear: its tasks must have been deleted before. The node's shim goes on,
    /// without what is left of the pod's tasks.
    pub async fn end(&self, place: &Place) -> Result<(), Error> {
        let home = self.home(place);
        match self.grouping {
            Grouping::Pod => self.end_one(&home).await,
            Grouping::Node => self.forget(place).await,
        }
    }

    async fn end_one(&self, home: &Home) -> Result<(), Error> {
        self.started(home).await;
        let shim = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.remove(&home.name).unwrap_or_else(|| Shim::new(self.socket(&home.name)))
        };
        // Without the folder no shim was ever started.
        if home.dir.exists() {
            // One that refuses, or does not answer, is found by its pid.
            if let Err(error) = shim.shutdown(ASKED).await {
                tracing::debug!(shim = home.name, %error, "the shim did not end by itself");
            }
            for pid in find(home) {
                kill(pid).await?;
            }
        }
        remove(&self.socket(&home.name))
    }

    async fn forget(&self, place: &Place) -> Result<(), Error> {
        let shim = self.of(&place.id);
        let Ok(tasks) = shim.list(ASKED).await else { return Ok(()) };
        for task in tasks.iter().filter(|task| task.bundle.starts_with(&place.dir)) {
            shim.delete(&task.id, ASKED).await?;
        }
        Ok(())
    }

    /// Ends the shim of the node if it has nothing to do, when the daemon ends.
    pub async fn close(&self) {
        let home = Home { name: NODE.to_owned(), dir: self.sockets.join(NODE) };
        if self.grouping == Grouping::Pod || !home.dir.exists() {
            return;
        }
        let _turn = self.node.lock().await;
        // With tasks it refuses, and goes on.
        if Shim::new(self.socket(NODE)).shutdown(ASKED).await.is_ok() {
            let _ = remove(&self.socket(NODE));
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).on("removing", path),
        _ => Ok(()),
    }
}

/// The processes that were started as this shim. The shim's own record is the quick way; without it
/// (a crash came first) the command lines of all processes are looked through.
fn find(home: &Home) -> Vec<Pid> {
    match Life::read(&home.dir) {
        Ok(Some(life)) if life.lasts().unwrap_or(false) => {
            i32::try_from(life.pid).ok().and_then(Pid::from_raw).into_iter().collect()
        }
        Ok(Some(_)) => Vec::new(),
        Ok(None) | Err(_) => all_pids().filter_map(|pid| is_shim(pid, home)).collect(),
    }
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The pid, if that process was started with this name and folder as its arguments.
fn is_shim(pid: i32, home: &Home) -> Option<Pid> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let folder = home.dir.as_os_str().as_encoded_bytes();
    let ours = words.get(1..5)? == [b"--pod", home.name.as_bytes(), b"--dir", folder];
    Pid::from_raw(pid).filter(|_| ours)
}

async fn kill(pid: Pid) -> Result<(), Error> {
    let Ok(process) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return Ok(()) };
    // It may have ended in this instant, which is what is wanted.
    let _ = pidfd_send_signal(&process, Signal::KILL);
    match tokio::time::timeout(DEATH, sys::pidfd::ended(process)).await {
        Err(_) => Err(Error::WillNotDie(DEATH)),
        Ok(result) => result.on("waiting for", format!("/proc/{}", pid.as_raw_nonzero())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_pods_shim_only_by_its_own_arguments() {
        let home = Home { name: "7".repeat(64), dir: "/nowhere".into() };
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(is_shim(own, &home), None);
        assert_eq!(is_shim(i32::MAX, &home), None);
        assert!(find(&home).is_empty());
    }

    #[test]
    fn a_socket_can_be_listened_at_again_and_its_name_is_short() {
        let sockets = tempfile::tempdir().unwrap();
        let dir = sockets.path().to_owned();
        let shims = Shims::new("/bin/true".into(), dir, Grouping::Pod);
        let name = "9".repeat(64);
        for _ in 0..2 {
            shims.listen(&name).unwrap();
            let mode = fs::metadata(shims.socket(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(shims.socket(&name).file_name().unwrap().len(), 25);
    }

    #[tokio::test]
    async fn pods_share_a_shim_only_where_they_are_grouped() {
        let of = |grouping| Shims::new("/bin/true".into(), "/s".into(), grouping);
        let (one, two) = (PodId::from_bytes([1; 32]), PodId::from_bytes([2; 32]));
        let (pod, node) = (of(Grouping::Pod), of(Grouping::Node));
        assert_ne!(pod.of(&one).address(), pod.of(&two).address());
        assert_eq!(node.of(&one).address(), node.of(&two).address());
    }
}
