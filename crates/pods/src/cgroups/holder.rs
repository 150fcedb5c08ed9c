//! The process that keeps a pod's scope: systemd takes a scope away in the moment in which it is empty.
//! It stays only once it is told to, so that none is left by a podbayd that was killed before.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use tokio::{io::AsyncWriteExt as _, process::ChildStdin};

/// What the kernel thinks of when it looks for somebody to kill: of all others before.
const OOM_SCORE: &str = "-998";

/// One that waits for the word to stay, and ends if it is dropped before.
pub(super) struct Holder {
    pub(super) pid: u32,
    word: ChildStdin,
}

impl Holder {
    /// Starts one, which is called by its unit's name in lists of processes.
    pub(super) fn spawn(program: &Path, unit: &str) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(unit).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = tokio::process::Command::from(command).spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (pid, word) = (child.id().ok_or_else(gone)?, child.stdin.take().ok_or_else(gone)?);
        // It is ours to bury for as long as we live.
        tokio::spawn(async move { child.wait().await });
        if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE) {
            tracing::debug!(pid, %error, "the holder of a scope is killed no later than others");
        }
        Ok(Self { pid, word })
    }

    pub(super) async fn stay(mut self) -> io::Result<()> {
        self.word.write_all(b".").await
    }
}
