//! The default AppArmor profile: loaded into the kernel at the start, where AppArmor is on.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// How long the parser may take, which compiles one small profile.
const PATIENCE: Duration = Duration::from_secs(20);

/// The profile. It needs no file of the distribution's. What a container has no business with is denied
/// whoever its root is: mounting, the kernel's switches below `/proc/sys` but for those of its own
/// namespaces, other `/proc` files that change or tell too much, and `/sys` but for cgroups.
const PROFILE: &str = r"
profile podbay-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=podbay-default,
  ptrace (trace, read, tracedby, readby) peer=podbay-default,

  deny mount,

  # What is no process's and none of the container's own namespaces'.
  deny /proc/* w,
  deny /proc/[^1-9st]*/** w,
  deny /proc/s[^ey]*/** w,
  deny /proc/t[^h]*/** w,
  deny /proc/sys/[^kn]** w,
  deny /proc/sys/kernel/[^hms]** w,
  deny /proc/sys/kernel/h[^o]** w,
  deny /proc/sys/kernel/m[^s]** w,
  deny /proc/sys/kernel/s[^he]** w,
  deny /proc/{sysrq-trigger,kcore,kmem,mem} rwklx,

  # All but cgroups.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Loads it. One that an earlier daemon has loaded confines its containers until then, and these too
/// from then on.
pub(crate) async fn load() -> io::Result<()> {
    let mut command = Command::new("apparmor_parser");
    command.args(["--replace", "--skip-cache", "--quiet"]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let told = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(PROFILE.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = timeout(PATIENCE, told).await??;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Loads it, and tells if that fails: then containers that ask for it are refused, and those that ask
/// for nothing have none.
pub(crate) async fn load_or_tell() {
    if let Err(error) = load().await {
        tracing::warn!(%error, "the default AppArmor profile cannot be loaded: is apparmor_parser installed?");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail anywhere")]
mod tests {
    use std::process::{Command, Stdio};

    use super::PROFILE;

    #[test]
    fn the_profile_is_one_that_the_parser_takes() {
        let mut parser = Command::new("apparmor_parser");
        parser.args(["--skip-kernel-load", "--skip-cache", "--quiet"]).stdin(Stdio::piped());
        let Ok(mut child) = parser.stderr(Stdio::piped()).spawn() else {
            eprintln!("skipped: there is no apparmor_parser");
            return;
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), PROFILE.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
