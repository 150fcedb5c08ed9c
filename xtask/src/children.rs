//! Programs that do not outlive this one, however it ends: the kernel kills them, and all that they
//! have started. No signal need be handled for that, and SIGKILL is no exception.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
};

use crate::files::sparse;

/// A program without children. It gets the signal when the thread that starts it ends, which has
/// to be the main one.
pub(crate) fn alone(signal: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// A program and all that come of it, in a pid namespace: when its first process is killed, all are.
pub(crate) fn family(program: impl AsRef<OsStr>) -> Command {
    let mut command = alone("KILL", "unshare");
    command.args(["--pid", "--mount-proc", "--fork", "--kill-child=KILL"]).arg(program);
    command
}

/// Runs it to its end. What it prints goes to our standard error, since our standard output is the
/// job's.
pub(crate) fn finish(mut command: Command, what: &str) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} ended with {status}")),
        Err(error) => Err(format!("{what} cannot be run: {error}")),
    }
}

/// Makes an ext4 disk of the files in a folder.
pub(crate) fn make_disk(from: &Path, disk: &Path, size: u64) -> Result<(), String> {
    sparse(disk, size)?;
    let mut mke2fs = alone("KILL", "mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"]);
    mke2fs.arg("-d").arg(from).arg(disk);
    finish(mke2fs, "mke2fs")
}
