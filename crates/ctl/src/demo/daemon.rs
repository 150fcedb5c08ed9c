//! The demo's own podbayd: found, configured, started, stopped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::error::{DemoError, Error};
use crate::link::Link;

use super::place::{CGROUP, Place};

/// It is up in much less; a machine may be slow.
const UP: Duration = Duration::from_secs(20);
const DOWN: Duration = Duration::from_secs(20);
/// Between two looks whether it is up.
const LOOK: Duration = Duration::from_millis(2);
/// How many of its last lines are shown when it fails.
const LAST_WORDS: usize = 8;

pub struct Daemon {
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    link: Option<Link>,
}

/// The podbayd that was given, or the one beside this program.
pub fn find(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    let beside = || {
        let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/podbay"));
        this.with_file_name("podbayd")
    };
    let program = given.unwrap_or_else(beside);
    match program.is_file() {
        true => Ok(program),
        false => Err(DemoError::NoDaemon { looked_at: program }.into()),
    }
}

impl Daemon {
    /// Writes its configuration.
    pub fn new(program: PathBuf, place: &Place, bridge: &str, subnet: &str) -> Result<Self, Error> {
        let at = |name: &str| place.path().join(name);
        let daemon = Daemon {
            program,
            config: at("podbayd.toml"),
            socket: at("podbay.sock"),
            log: at("podbayd.log"),
            child: None,
            link: None,
        };
        let written = fs::write(&daemon.config, config(place.path(), bridge, subnet));
        written.map_err(|source| file("writing", &daemon.config, source))?;
        Ok(daemon)
    }

    /// Whether it has ever answered, so that there may be something to remove.
    pub fn was_up(&self) -> bool {
        self.link.is_some()
    }

    /// Starts it, unless it runs, and waits until it answers.
    pub async fn start(&mut self) -> Result<Link, Error> {
        let runs = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if let Some(link) = self.link.as_ref().filter(|_| runs) {
            return Ok(link.clone());
        }
        if !runs {
            self.child = Some(self.spawn()?);
        }
        let link = self.until_up().await?;
        Ok(self.link.insert(link).clone())
    }

    fn spawn(&self) -> Result<Child, Error> {
        let open = |path| fs::File::options().create(true).append(true).open(path);
        let log = open(&self.log).map_err(|source| file("writing", &self.log, source))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is for us: podbayd has to live until its pod is removed.
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(|source| file("starting", &self.program, source))
    }

    async fn until_up(&mut self) -> Result<Link, Error> {
        let begun = Instant::now();
        loop {
            if let Ok(link) = Link::open(&self.socket).await {
                return Ok(link);
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(DemoError::DaemonEnded { status, log: self.last_words() }.into());
            }
            if begun.elapsed() > UP {
                let seconds = UP.as_secs();
                return Err(DemoError::DaemonSlow { seconds, log: self.last_words() }.into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it, by SIGTERM and in the end by SIGKILL. False when it did not run.
    pub async fn stop(&mut self) -> Result<bool, Error> {
        let Some(mut child) = self.child.take() else { return Ok(false) };
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(false) };
        // It may end by itself just now, which is as good.
        let _ = kill_process(pid, Signal::TERM);
        if tokio::time::timeout(DOWN, child.wait()).await.is_ok() {
            return Ok(true);
        }
        child.kill().await.map_err(|source| file("killing", &self.program, source))?;
        Err(DemoError::Left("podbayd did not end by itself, and was killed".to_owned()).into())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

fn file(doing: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { doing, path: path.to_owned(), source }
}

/// Everything of its own, so that neither another podbayd nor a CNI of this machine is touched; and cgroups by
/// their files, for systemd would keep the slice.
fn config(place: &Path, bridge: &str, subnet: &str) -> String {
    // Debug quotes text as TOML does, for all that a path of ours and a subnet can hold.
    let at = |name: &str| format!("{:?}", place.join(name).display().to_string());
    format!(
        "root = {}\nstate = {}\nsocket = {}\n\n\
         [cgroups]\ndriver = \"cgroupfs\"\nparent = {CGROUP:?}\n\n\
         [network]\nconf_dir = {}\ncache_dir = {}\nfallback = \"bridge\"\n\n\
         [network.bridge]\nname = {bridge:?}\nsubnets = [{subnet:?}]\nremove_on_exit = true\n",
        at("root"),
        at("state"),
        at("podbay.sock"),
        at("net.d"),
        at("cni"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_all_its_own() {
        let text = config(Path::new("/var/tmp/podbay-demo-x"), "pbdemo0", "10.89.0.0/24");
        assert_eq!(text, include_str!("../../golden/demo.toml"));
    }

    #[test]
    fn a_podbayd_that_is_not_there_is_named() {
        let error = find(Some(PathBuf::from("/no/such/podbayd"))).expect_err("it is not there");
        let wanted = "there is no podbayd at /no/such/podbayd: give its path with --podbayd";
        assert_eq!(error.chain(), wanted);
    }
}
