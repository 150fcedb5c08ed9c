//! Running a command in a container: one `fork`, and in the copy all that makes it a process of
//! the container, in the order in which it is safe and still allowed.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use oci_spec::runtime::{Process, Spec};
use rustix::{
    process::{chdir, setsid},
    thread::{ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces},
};

use crate::{
    confine::{self, Profile},
    console, fork, processes,
    program::{self, Failure},
    pty,
    runtime::Exec,
};

/// The namespaces of a process, but for the pid namespace, which only children can enter.
const NAMESPACES: [(&str, ThreadNameSpaceType); 7] = [
    ("user", ThreadNameSpaceType::USER),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("net", ThreadNameSpaceType::NETWORK),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("time", ThreadNameSpaceType::TIME),
    ("mnt", ThreadNameSpaceType::MOUNT),
];

/// Forks a child that becomes the command, and gives its pid. The child reports to the pipe if it
/// fails; the pipe ends without a word when the command runs.
pub fn spawn(exec: &Exec<'_>, report: BorrowedFd<'_>) -> io::Result<u32> {
    let init = processes::hold(exec.init)?;
    let ends = &exec.ends;
    let keep = [
        init.as_raw_fd(),
        report.as_raw_fd(),
        ends.stdin.as_raw_fd(),
        ends.stdout.as_raw_fd(),
        ends.stderr.as_raw_fd(),
    ];
    let child = || {
        let failure = become_command(exec, &init);
        failure.report(report);
        failure.code
    };
    in_pid_namespace(exec.init, &init, || fork::fork(&keep, child))?
}

/// Forks as if from inside the pid namespace. Of the one thread that we have, only what its
/// children get is changed, and only until it has forked.
fn in_pid_namespace<T>(init: u32, pidfd: &OwnedFd, fork: impl FnOnce() -> T) -> io::Result<T> {
    if same_namespace(init, "pid")? {
        return Ok(fork());
    }
    let own = File::open("/proc/self/ns/pid")?;
    move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
    let result = fork();
    // It was ours to begin with, so that it cannot be refused. If it were, every child from now on
    // would be born into a container.
    move_into_link_name_space(own.as_fd(), None).expect("the pid namespace that we are in");
    Ok(result)
}

fn same_namespace(pid: u32, kind: &str) -> io::Result<bool> {
    let of = |who: &str| {
        let link = fs::metadata(format!("/proc/{who}/ns/{kind}"))?;
        Ok::<_, io::Error>((link.dev(), link.ino()))
    };
    Ok(of(&pid.to_string())? == of("self")?)
}

/// Returns only if it fails.
fn become_command(exec: &Exec<'_>, init: &OwnedFd) -> Failure {
    enter(exec, init).map_or_else(|failure| failure, |process| program::execute(&process))
}

fn enter(exec: &Exec<'_>, init: &OwnedFd) -> Result<Process, Failure> {
    let spec = Spec::load(exec.bundle.config())
        .map_err(|e| Failure::of_runtime(format!("reading config.json: {e}")))?;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(exec.args.to_vec()));
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());

    confine::take_stdio([&exec.ends.stdin, &exec.ends.stdout, &exec.ends.stderr])?;
    let console = exec.terminal.as_ref().map(|terminal| console::connect(terminal.console));
    let console = console.transpose().map_err(Failure::on_the_way("going to send a terminal"))?;
    setsid().map_err(Failure::on_the_way("making a session"))?;
    if let Some(cgroup) = exec.cgroup {
        let joined = cgroup.join_or_follow(exec.init);
        joined.map_err(Failure::on_the_way("joining the container's cgroup"))?;
    }
    confine::limit(&process)?;
    let profile = Profile::open(&process)?;
    enter_namespaces(exec.init, init)?;
    if let (Some(console), Some(terminal)) = (console, &exec.terminal) {
        pty::take(&console, terminal.size, process.user().uid())?;
        program::name_terminal(&mut process);
    }
    fork::close_on_exec();
    let late = confine::confine(&process, filter.as_ref(), profile)?;
    confine::load(late.as_ref())?;
    Ok(process)
}

fn enter_namespaces(pid: u32, init: &OwnedFd) -> Result<(), Failure> {
    let mut kinds = ThreadNameSpaceType::empty();
    for (name, kind) in NAMESPACES {
        match same_namespace(pid, name) {
            Ok(true) => {}
            Ok(false) => kinds |= kind,
            // This kernel has no such namespaces.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::on_the_way("looking at the container's namespaces")(e)),
        }
    }
    let root = (!kinds.contains(ThreadNameSpaceType::MOUNT)).then(|| format!("/proc/{pid}/root"));
    if let Some(root) = root {
        let root = chdir(root).and_then(|()| rustix::process::chroot("."));
        root.map_err(Failure::on_the_way("entering the container's root"))?;
    }
    move_into_thread_name_spaces(init.as_fd(), kinds)
        .map_err(Failure::on_the_way("entering the container's namespaces"))
}
