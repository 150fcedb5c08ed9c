//! Any runtime with the command line of runc: it is called, and what it makes is left to us, since
//! we are a subreaper. Its own words about a failure are in its log, which it writes as JSON.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use async_trait::async_trait;
use oci_spec::runtime::{BoxBuilder, LinuxResources, Spec};
use serde::Deserialize;
use sys::cgroup::Cgroup;
use tokio::time::timeout;

use super::{Exec, Made, Making, Runtime, Scratch, Starting, Terminal, Unmaking};
use crate::{
    console::Reachable,
    error::Error,
    fork, processes, program,
    reaper::{Ended, Reaper},
    stdio::Ends,
};

/// The most that is told of what a runtime says, in bytes.
const WORDS: usize = 4096;

pub struct Binary {
    program: PathBuf,
    /// Where the runtime keeps its state, and we our files for it.
    root: PathBuf,
    systemd_cgroup: bool,
    reaper: Reaper,
}

impl Binary {
    pub fn new(program: PathBuf, root: PathBuf, systemd_cgroup: bool, reaper: Reaper) -> Self {
        Self { program, root, systemd_cgroup, reaper }
    }

    /// A file of ours next to the runtime's state.
    fn scratch(&self, id: &str, kind: &str) -> Result<Scratch, Error> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.root)
            .map_err(|e| Error::io("making the runtime's directory", &self.root, e))?;
        let name = format!(".{id}.{}.{kind}", NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Scratch(self.root.join(name)))
    }

    fn command(&self, log: &Scratch) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root);
        command.arg("--log").arg(&log.0).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // SAFETY: between fork and exec it does what it does elsewhere; we have one thread.
        unsafe {
            command.pre_exec(|| {
                fork::begin_oom_score();
                Ok(())
            })
        };
        command
    }

    /// Runs the runtime to its end, which must be a success.
    async fn run(
        &self,
        doing: &'static str,
        id: &str,
        within: Duration,
        ends: Ends,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<(), Error> {
        let log = self.scratch(id, "log")?;
        let mut command = self.command(&log);
        arguments(&mut command);
        command.stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
        let child = command.spawn().map_err(|e| Error::io("running", &self.program, e))?;
        drop(command);
        let pid = child.id();
        let mut ended = self.reaper.watch(pid);
        match timeout(within, &mut ended).await {
            Ok(Ok(Ended { code: 0, .. })) => Ok(()),
            Ok(end) => Err(refusal(doing, &log.0, end.map_or(-1, |end| end.code))),
            Err(_) => {
                processes::kill_tree(pid);
                let _ = timeout(Duration::from_secs(1), ended).await;
                Err(Error::Late { doing, within })
            }
        }
    }

    /// Runs it without stdio of anybody's.
    async fn tell(
        &self,
        doing: &'static str,
        id: &str,
        within: Duration,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<(), Error> {
        self.run(doing, id, within, Ends::null()?, arguments).await
    }
}

#[async_trait]
impl Runtime for Binary {
    async fn make(&self, making: Making<'_>) -> Result<Made, Error> {
        let doing = "creating the container";
        let Making { id, bundle, ends, console, no_pivot, within } = making;
        let pid_file = self.scratch(id, "pid")?;
        let console = console.map(reachable).transpose()?;
        let _birth = self.reaper.expect();
        self.run(doing, id, within, ends, |command| {
            command.arg("create").arg("--bundle").arg(&bundle.dir);
            command.arg("--pid-file").arg(&pid_file.0);
            if let Some(console) = &console {
                command.arg("--console-socket").arg(&console.path);
            }
            if no_pivot {
                command.arg("--no-pivot");
            }
            command.arg(id);
        })
        .await?;
        Ok(Made { pid: read_pid(&pid_file.0)?, running: None })
    }

    async fn start(&self, starting: Starting<'_>) -> Result<(), Error> {
        let Starting { id, within, .. } = starting;
        self.tell("starting the container", id, within, |command| {
            command.arg("start").arg(id);
        })
        .await
    }

    async fn exec(&self, exec: Exec<'_>) -> Result<u32, Error> {
        let doing = "running the command in the container";
        let process = self.scratch(exec.id, "process.json")?;
        write_process(&process.0, &exec)?;
        let pid_file = self.scratch(exec.id, "pid")?;
        let console = exec.terminal.as_ref().map(|terminal| reachable(terminal.console));
        let console = console.transpose()?;
        let _birth = self.reaper.expect();
        self.run(doing, exec.id, exec.within, exec.ends, |command| {
            command.arg("exec").arg("--detach").arg("--process").arg(&process.0);
            command.arg("--pid-file").arg(&pid_file.0);
            if let Some(console) = &console {
                command.arg("--console-socket").arg(&console.path);
            }
            command.arg(exec.id);
        })
        .await?;
        read_pid(&pid_file.0)
    }

    async fn update(
        &self,
        id: &str,
        _cgroup: Option<&Cgroup>,
        resources: &LinuxResources,
        within: Duration,
    ) -> Result<(), Error> {
        let doing = "setting the container's limits";
        let file = self.scratch(id, "resources.json")?;
        let text = serde_json::to_vec(resources)
            .map_err(|e| Error::bad("the resources", e.to_string()))?;
        fs::write(&file.0, text).map_err(|e| Error::io(doing, &file.0, e))?;
        self.tell(doing, id, within, |command| {
            command.arg("update").arg("--resources").arg(&file.0).arg(id);
        })
        .await
    }

    async fn unmake(&self, unmaking: Unmaking<'_>) -> Result<(), Error> {
        let Unmaking { id, within, .. } = unmaking;
        self.tell("deleting the container", id, within, |command| {
            command.arg("delete").arg("--force").arg(id);
        })
        .await
    }
}

/// The console's socket as a runtime can be told of it: an address has no room for a long path.
fn reachable(console: &Path) -> Result<Reachable, Error> {
    Reachable::new(console).map_err(|e| Error::io("finding the folder of", console, e))
}

fn read_pid(path: &Path) -> Result<u32, Error> {
    let doing = "reading the pid that the runtime wrote";
    let text = fs::read_to_string(path).map_err(|e| Error::io(doing, path, e))?;
    text.trim().parse().map_err(|_| Error::Runtime { doing, words: format!("{text:?} is no pid") })
}

/// The container's own process, with other arguments, and with a terminal or without.
fn write_process(path: &Path, exec: &Exec<'_>) -> Result<(), Error> {
    let spec =
        Spec::load(exec.bundle.config()).map_err(|e| Error::bad("config.json", e.to_string()))?;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(exec.args.to_vec())).set_terminal(None).set_console_size(None);
    if let Some(Terminal { size, .. }) = exec.terminal {
        let size = BoxBuilder::default().width(size.width).height(size.height).build();
        process.set_terminal(Some(true)).set_console_size(size.ok());
        program::name_terminal(&mut process);
    }
    let text =
        serde_json::to_vec(&process).map_err(|e| Error::bad("the process", e.to_string()))?;
    fs::write(path, text).map_err(|e| Error::io("writing the process", path, e))
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// What the runtime says of its failure. Whether it was the program's fault is in its words only,
/// which all runtimes have from runc.
fn refusal(doing: &'static str, log: &Path, code: i32) -> Error {
    let words = words(&fs::read(log).unwrap_or_default())
        .unwrap_or_else(|| format!("it ended with status {code} and without a word"));
    let program = ["executable file not found", "no such file or directory", "permission denied"];
    match words.find("exec: ").or_else(|| words.find("exec /")) {
        Some(at) if program.iter().any(|why| words[at..].contains(why)) => {
            Error::NotExecutable(words)
        }
        _ => Error::Runtime { doing, words },
    }
}

/// The last error in a log; the last line, if it is in no format we know.
fn words(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let serious = |line: &Line| matches!(line.level.as_str(), "error" | "fatal" | "panic");
    let parsed = |line| serde_json::from_str::<Line>(line).ok();
    let error = text.lines().rev().filter_map(parsed).find(serious).map(|line| line.msg);
    let last = || text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned);
    error.or_else(last).map(|words| words.chars().take(WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_last_error_is_what_it_says() {
        let log = b"{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"e1\"}\n\
            {\"level\":\"error\",\"msg\":\"e2\"}\n{\"level\":\"info\",\"msg\":\"i\"}\n";
        assert_eq!(words(log).as_deref(), Some("e2"));
        assert_eq!(words(b"plain\n\n").as_deref(), Some("plain"));
        assert_eq!(words(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_log_is_read_without_a_panic(log: Vec<u8>) {
            let _ = words(&log);
        }
    }
}
