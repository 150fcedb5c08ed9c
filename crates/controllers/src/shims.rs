//! The shims of this daemon: one supervisor process a pod, started here, found again after a
//! restart, and ended. What a shim is asked to do is not known here.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use names::PodId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim_api::{Life, Shim};

use crate::{Error, error::Context};

/// How long a killed shim may take to be gone. Only a process stuck in the kernel takes longer.
const DEATH: Duration = Duration::from_secs(10);

/// How long a shim may take to answer that it ends.
const ASKED: Duration = Duration::from_secs(5);

/// The descriptor on which a shim finds its listening socket.
const LISTENER: i32 = 3;

/// Starts, finds and ends shims.
#[derive(Clone)]
pub struct Shims {
    program: PathBuf,
    sockets: PathBuf,
    known: Arc<Mutex<HashMap<PodId, Shim>>>,
}

impl Shims {
    /// `program` is the shim's; sockets are made in the folder `sockets`, which must exist.
    pub fn new(program: PathBuf, sockets: PathBuf) -> Self {
        Self { program, sockets, known: Arc::default() }
    }

    /// Where the pod's shim listens. The name is short, for the 107 bytes that a path may have, and
    /// its 80 bits do not collide.
    pub fn socket(&self, pod: &PodId) -> PathBuf {
        self.sockets.join(format!("{}.sock", &pod.as_str()[..20]))
    }

    /// The pod's shim, whether it lives or not.
    pub fn of(&self, pod: &PodId) -> Shim {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(pod.clone()).or_insert_with(|| Shim::new(self.socket(pod))).clone()
    }

    /// Starts the pod's shim. Its socket listens when this returns.
    pub fn spawn(&self, pod: &PodId, dir: &Path) -> Result<Shim, Error> {
        let socket = self.listen(pod)?;
        let log_path = dir.join("shim.log");
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
        let mut command = Command::new(&self.program);
        command
            .args(["--pod", pod.as_str(), "--dir"])
            .arg(dir)
            .env_clear()
            .envs(std::env::vars_os().filter(|(key, _)| key == "PATH" || key == "PODBAY_SHIM_LOG"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.on("opening", log_path)?);
        let mapping = FdMapping { parent_fd: socket, child_fd: LISTENER };
        command.fd_mappings(vec![mapping]).expect("one mapping collides with nothing");
        let child = tokio::process::Command::from(command).spawn();
        let mut child = child.on("starting the shim", &self.program)?;
        // It is ours to bury for as long as we live; its end is told by its socket.
        tokio::spawn(async move { child.wait().await });
        Ok(self.of(pod))
    }

    fn listen(&self, pod: &PodId) -> Result<OwnedFd, Error> {
        let path = self.socket(pod);
        remove(&path)?;
        let listener = UnixListener::bind(&path).on("listening at", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).on("restricting", &path)?;
        Ok(listener.into())
    }

    /// Ends the pod's shim, if there is one, and removes its socket. The shim is asked first, and
    /// killed if it will not hear: its tasks must have been deleted before.
    pub async fn end(&self, pod: &PodId, dir: &Path) -> Result<(), Error> {
        // Without the folder no shim was ever started.
        if dir.exists() {
            // One that refuses, or does not answer, is found by its pid.
            if let Err(error) = self.of(pod).shutdown(ASKED).await {
                tracing::debug!(%pod, %error, "the shim did not end by itself");
            }
            for pid in find(pod, dir) {
                kill(pid).await?;
            }
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
        remove(&self.socket(pod))
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).on("removing", path),
        _ => Ok(()),
    }
}

/// The processes that were started as this pod's shim. The shim's own record is the quick way; without
/// it (a crash came first) the command lines of all processes are looked through.
fn find(pod: &PodId, dir: &Path) -> Vec<Pid> {
    match Life::read(dir) {
        Ok(Some(life)) if life.lasts().unwrap_or(false) => {
            i32::try_from(life.pid).ok().and_then(Pid::from_raw).into_iter().collect()
        }
        Ok(Some(_)) => Vec::new(),
        Ok(None) | Err(_) => all_pids().filter_map(|pid| is_shim_of(pid, pod, dir)).collect(),
    }
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The pid, if that process was started with this pod and folder as its arguments.
fn is_shim_of(pid: i32, pod: &PodId, dir: &Path) -> Option<Pid> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let folder = dir.as_os_str().as_encoded_bytes();
    let ours = words.get(1..5)? == [b"--pod", pod.as_str().as_bytes(), b"--dir", folder];
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
        let pod = PodId::from_bytes([7; 32]);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(is_shim_of(own, &pod, Path::new("/x")), None);
        assert_eq!(is_shim_of(i32::MAX, &pod, Path::new("/x")), None);
        let mut child = Command::new("/bin/sh").args(["--pod"]).spawn().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        assert!(find(&pod, Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn a_socket_can_be_listened_at_again_and_its_name_is_short() {
        let sockets = tempfile::tempdir().unwrap();
        let shims = Shims::new("/bin/true".into(), sockets.path().to_owned());
        let pod = PodId::from_bytes([9; 32]);
        for _ in 0..2 {
            shims.listen(&pod).unwrap();
            let mode = fs::metadata(shims.socket(&pod)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(shims.socket(&pod).file_name().unwrap().len(), 25);
    }
}
