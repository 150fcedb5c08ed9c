//! Running a command in a container: one `fork`, and in the copy all that makes it a process of
//! the container, in the order in which it is safe and still allowed.
//!
//! libcontainer can do this too, but leaves out seccomp, AppArmor and user namespaces (0.7.0).

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use libcontainer::{
    capabilities, seccomp,
    syscall::{Syscall, syscall::create_syscall},
};
use oci_spec::runtime::{LinuxSeccomp, Process, Spec, User};
use rustix::{
    fs::Mode,
    process::{chdir, setsid, umask},
    thread::{
        Gid, ThreadNameSpaceType, Uid, move_into_link_name_space, move_into_thread_name_spaces,
        set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};
use sys::cgroup::Cgroup;

use crate::{
    console, fork, processes,
    program::{self, Failure},
    pty,
    runtime::Exec,
};

/// What of umask a process gets that says nothing of it.
const UMASK: u32 = 0o022;

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
    let syscall = create_syscall();

    take_stdio(exec)?;
    let console = exec.terminal.as_ref().map(|terminal| console::connect(terminal.console));
    let console = console.transpose().map_err(Failure::on_the_way("going to send a terminal"))?;
    setsid().map_err(Failure::on_the_way("making a session"))?;
    limit(exec.cgroup, &process, syscall.as_ref())?;
    let profile = Profile::open(&process)?;
    enter_namespaces(exec.init, init)?;
    if let (Some(console), Some(terminal)) = (console, &exec.terminal) {
        pty::take(&console, terminal.size, process.user().uid())?;
        program::name_terminal(&mut process);
    }
    fork::close_on_exec();
    confine(&process, filter.as_ref(), profile, syscall.as_ref())?;
    Ok(process)
}

fn take_stdio(exec: &Exec<'_>) -> Result<(), Failure> {
    let take = || {
        rustix::stdio::dup2_stdin(&exec.ends.stdin)?;
        rustix::stdio::dup2_stdout(&exec.ends.stdout)?;
        rustix::stdio::dup2_stderr(&exec.ends.stderr)
    };
    take().map_err(Failure::on_the_way("setting up stdio"))
}

/// The limits that are set from outside: cgroup, OOM score, resource limits.
fn limit(cgroup: Option<&Cgroup>, process: &Process, syscall: &dyn Syscall) -> Result<(), Failure> {
    if let Some(cgroup) = cgroup {
        cgroup.join().map_err(Failure::on_the_way("joining the container's cgroup"))?;
    }
    if let Some(score) = process.oom_score_adj() {
        fs::write(fork::OOM_SCORE_FILE, score.to_string())
            .map_err(Failure::on_the_way("setting the OOM score"))?;
    }
    for limit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(limit).map_err(|e| {
            Failure::of_runtime(format!("setting the limit {:?}: {e}", limit.typ()))
        })?;
    }
    Ok(())
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

/// From here on we are inside, and give away what we may.
fn confine(
    process: &Process,
    filter: Option<&LinuxSeccomp>,
    profile: Profile,
    syscall: &dyn Syscall,
) -> Result<(), Failure> {
    let no_new_privileges = process.no_new_privileges() == Some(true);
    umask(Mode::from_raw_mode(process.user().umask().unwrap_or(UMASK)));
    let late = work_in(process.cwd())?;
    become_user(process.user())?;
    if no_new_privileges {
        set_no_new_privs(true).map_err(Failure::on_the_way("giving up new privileges"))?;
    } else {
        // Without that, loading a filter is a privilege, which the next step gives away.
        load(filter)?;
    }
    capabilities::reset_effective(syscall).map_err(Failure::of_capabilities)?;
    let wanted = process.capabilities().clone().unwrap_or_else(program::no_capabilities);
    capabilities::drop_privileges(&wanted, syscall).map_err(Failure::of_capabilities)?;
    if late {
        chdir(process.cwd()).map_err(Failure::on_the_way("changing to the working directory"))?;
    }
    stand_inside()?;
    profile.apply()?;
    if no_new_privileges {
        load(filter)?;
    }
    Ok(())
}

/// Changes directory as root, who may; or says that it is for the user to do, who may on a file
/// system that does not trust our root.
fn work_in(cwd: &Path) -> Result<bool, Failure> {
    match chdir(cwd) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => Ok(true),
        Err(e) => Err(Failure::on_the_way("changing to the working directory")(e)),
    }
}

/// A working directory that came from a descriptor of the host's (`/proc/self/fd/7`) is not
/// reachable from the root, which is how it is told (CVE-2024-21626).
fn stand_inside() -> Result<(), Failure> {
    let cwd = rustix::process::getcwd(Vec::new())
        .map_err(Failure::on_the_way("looking where the working directory is"))?;
    if cwd.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Failure::of_runtime("the working directory is outside the container's root".to_owned()))
}

fn become_user(user: &User) -> Result<(), Failure> {
    let groups: Vec<Gid> =
        user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let become_it = || {
        set_keep_capabilities(true)?;
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_keep_capabilities(false)
    };
    become_it().map_err(Failure::on_the_way("becoming the container's user"))
}

fn load(filter: Option<&LinuxSeccomp>) -> Result<(), Failure> {
    let Some(filter) = filter else { return Ok(()) };
    if seccomp::is_notify(filter) {
        let why = "a seccomp profile with SCMP_ACT_NOTIFY cannot be applied to a command";
        return Err(Failure::of_runtime(why.to_owned()));
    }
    seccomp::initialize_seccomp(filter)
        .map(drop)
        .map_err(|e| Failure::of_runtime(format!("loading the seccomp profile: {e}")))
}

/// The LSM profile of the command, to be asked for through the host's `/proc`, which nobody in the
/// container can have put something else in the place of.
#[derive(Default)]
struct Profile {
    apparmor: Option<(File, String)>,
    selinux: Option<(File, String)>,
}

impl Profile {
    fn open(process: &Process) -> Result<Self, Failure> {
        let set = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let open = |path: &str| File::options().write(true).open(path);
        let exec = "/proc/thread-self/attr/exec";
        let mut profile = Self::default();
        if let Some(name) = set(process.apparmor_profile()) {
            let file = open("/proc/thread-self/attr/apparmor/exec").or_else(|_| open(exec));
            let file = file.map_err(Failure::on_the_way("opening the AppArmor attribute"))?;
            profile.apparmor = Some((file, format!("exec {name}")));
        }
        if let Some(label) = set(process.selinux_label()) {
            let file = open(exec).map_err(Failure::on_the_way("opening the SELinux attribute"))?;
            profile.selinux = Some((file, label));
        }
        Ok(profile)
    }

    fn apply(self) -> Result<(), Failure> {
        for (mut file, wanted) in self.apparmor.into_iter().chain(self.selinux) {
            file.write_all(wanted.as_bytes())
                .map_err(Failure::on_the_way("setting the AppArmor profile or SELinux label"))?;
        }
        Ok(())
    }
}
