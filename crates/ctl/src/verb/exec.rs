//! `podbay exec`: a command that runs to its end. For terminals and long streams there is kubectl.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use cri_proto::v1;
use tonic::Request;

use crate::args::Exec;
use crate::error::Error;
use crate::find;
use crate::link::{CHANGE, Link, answer, within};

/// Exits as the command does.
pub async fn run(link: &Link, exec: Exec, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let container = find::container(link, &exec.container).await?;
    let ended = call(link, container.id, exec.command, exec.timeout).await?;
    out.write_all(&ended.stdout).map_err(Error::Output)?;
    std::io::stderr().write_all(&ended.stderr).map_err(Error::Output)?;
    // Codes of processes are bytes; what else a runtime may answer is a failure all the same.
    Ok(ExitCode::from(u8::try_from(ended.exit_code).unwrap_or(1)))
}

/// Runs a command in a container. Without a limit it may take for ever, as a person wants who
/// gives none; the call can be interrupted.
pub async fn call(
    link: &Link,
    container_id: String,
    cmd: Vec<String>,
    limit: Option<Duration>,
) -> Result<v1::ExecSyncResponse, Error> {
    let timeout = limit.map_or(0, |limit| i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
    let message = v1::ExecSyncRequest { container_id, cmd, timeout };
    let request = match limit {
        // The runtime ends the command; we only must not wait when it does not.
        Some(limit) => within(limit.saturating_add(CHANGE), message),
        None => Request::new(message),
    };
    answer("ExecSync", link.runtime().exec_sync(request).await)
}
