//! One run of one plugin: its environment and nothing of ours, its conf on stdin, what it prints,
//! and the end of its whole process group if it takes too long.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::error::{Call, Error, QUOTED, Refusal, Said};

/// No result is longer than this, in bytes.
const LONGEST: u64 = 1 << 20;

/// How long the kernel may take to end what was killed, before we go on without knowing.
const BURIAL: Duration = Duration::from_secs(2);

/// When a run must be over, and how long that was from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit, limit }
    }
}

/// What a plugin printed so far: all of stdout, the last of stderr.
#[derive(Default)]
pub(crate) struct Printed {
    pub(crate) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Printed {
    pub(crate) fn said(&self) -> Said {
        Said(String::from_utf8_lossy(&self.stderr).trim_end().to_owned())
    }
}

/// Runs `program` and returns what it printed, if it ended well.
///
/// If the deadline passes, it prints too much, or the caller drops this, its process group is killed.
/// A plugin counts as running for as long as anybody holds its stdout or stderr open.
pub(crate) async fn run(
    call: &Call,
    program: &Path,
    env: &[(&str, OsString)],
    conf: &[u8],
    deadline: Deadline,
) -> Result<Printed, Error> {
    let mut child = spawn(program, env, deadline).await.map_err(|source| Error::Unrunnable {
        call: Box::new(call.clone()),
        program: program.to_owned(),
        source,
    })?;
    let mut group = Group::led_by(&child);
    let mut printed = Printed::default();
    let ended = timeout_at(deadline.at, converse(&mut child, conf, &mut printed)).await;
    if !matches!(ended, Ok(Ok(Some(_)))) {
        group.kill();
        // Whether it is gone by then changes nothing in what the caller is told.
        let _ = timeout(BURIAL, child.wait()).await;
    }
    group.disarm();
    judge(call, deadline, ended.ok(), printed)
}

/// Feeds the plugin, listens until it has closed its ends, and only then reaps it: until then its
/// id, by which its group is killed, cannot become another's. None if it printed too much.
async fn converse(
    child: &mut Child,
    conf: &[u8],
    printed: &mut Printed,
) -> io::Result<Option<ExitStatus>> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(io::Error::other("a pipe is missing"));
    };
    let mut stdout = stdout.take(LONGEST + 1);
    let listen = async {
        stdout.read_to_end(&mut printed.stdout).await?;
        if stdout.limit() == 0 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    };
    match tokio::try_join!(feed(stdin, conf), listen, keep_tail(stderr, &mut printed.stderr)) {
        Ok(_) => child.wait().await.map(Some),
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        Err(e) => Err(e),
    }
}

fn judge(
    call: &Call,
    deadline: Deadline,
    ended: Option<io::Result<Option<ExitStatus>>>,
    printed: Printed,
) -> Result<Printed, Error> {
    let said = printed.said();
    let call = || Box::new(call.clone());
    match ended {
        None => Err(Error::TimedOut { call: call(), limit: deadline.limit, said }),
        Some(Err(source)) => Err(Error::Talk { call: call(), source }),
        Some(Ok(None)) => Err(Error::TooMuchOutput { call: call(), limit: LONGEST, said }),
        Some(Ok(Some(status))) if status.success() => Ok(printed),
        Some(Ok(Some(status))) => {
            Err(Error::Failed { call: call(), refusal: refusal(&printed.stdout), status, said })
        }
    }
}

/// A process that is being forked elsewhere in this program may hold a plugin open for writing that
/// was installed just now; that passes.
async fn spawn(program: &Path, env: &[(&str, OsString)], deadline: Deadline) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    loop {
        match command.spawn() {
            Err(e)
                if e.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline.at =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}

/// A plugin need not read what it is told.
async fn feed(mut stdin: ChildStdin, conf: &[u8]) -> io::Result<()> {
    match stdin.write_all(conf).await {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Reads to the end, and keeps the last of it: what matters is mostly written last.
async fn keep_tail(mut from: impl AsyncRead + Unpin, tail: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(()),
            read => tail.extend_from_slice(&chunk[..read]),
        }
        tail.drain(..tail.len().saturating_sub(QUOTED));
    }
}

#[derive(Deserialize)]
struct Told {
    code: i64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn refusal(stdout: &[u8]) -> Refusal {
    let cut = |text: &str| text.chars().take(QUOTED / 4).collect::<String>();
    match serde_json::from_slice::<Told>(stdout) {
        Ok(Told { code, msg, details }) => {
            Refusal::Told { code, message: cut(&msg), details: cut(&details) }
        }
        Err(_) => Refusal::Printed(cut(String::from_utf8_lossy(stdout).trim_end())),
    }
}

/// A plugin's process group, killed when dropped: a caller who stops waiting must not leave a plugin
/// behind that goes on changing the host.
struct Group(Option<Pid>);

impl Group {
    fn led_by(child: &Child) -> Group {
        Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            // It may have ended by itself just now.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// The leader was reaped: its id may be anybody's.
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
