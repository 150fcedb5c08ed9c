//! The hooks of a config: programs of the host's that are run at certain points of a container's life,
//! and told its state on their stdin.

use std::{
    io::Write as _,
    os::fd::AsFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use oci_spec::runtime::{Hook, Spec};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::json;

use crate::program::Failure;

/// A container's state, as hooks get it.
pub fn state(id: &str, bundle: &Path, spec: &Spec, status: &str, pid: Option<u32>) -> String {
    json!({
        "ociVersion": spec.version(),
        "id": id,
        "status": status,
        "pid": pid.unwrap_or_default(),
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    })
    .to_string()
}

/// Runs them one after the other. They end with us: whoever calls this is a copy of the shim that has
/// a deadline, or an init.
///
/// # Errors
/// The first that fails.
pub fn run(hooks: Option<&[Hook]>, state: &str) -> Result<(), Failure> {
    hooks.unwrap_or_default().iter().try_for_each(|hook| {
        let failed =
            |why| Failure::of_runtime(format!("the hook {}: {why}", hook.path().display()));
        run_one(hook, state).map_err(failed)
    })
}

fn run_one(hook: &Hook, state: &str) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // The first argument is the program's own name for itself.
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = args.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(rest);
    }
    let variables = hook.env().iter().flatten();
    command.envs(variables.filter_map(|variable| variable.split_once('=')));
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    if !ends(&child, timeout.map(Duration::from_secs))? {
        let _ = child.kill();
        let _ = child.wait();
        return Err("it did not end in its time".to_owned());
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Whether it ends in time.
fn ends(child: &Child, within: Option<Duration>) -> Result<bool, String> {
    let Some(within) = within else { return Ok(true) };
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or("it has no pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| e.to_string())?;
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|e| e.to_string())?;
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.map(|count| count > 0).map_err(|e| e.to_string()),
        }
    }
}
