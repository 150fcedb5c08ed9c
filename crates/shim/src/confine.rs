//! What binds a program, whether it is a container's first or a command in it: its limits, its user,
//! its capabilities, its filter of system calls and its profile, in the order in which each is safe
//! and still allowed.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::OwnedFd,
    path::Path,
};

use oci_spec::runtime::{LinuxSeccomp, PosixRlimit, PosixRlimitType, Process, User};
use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, chdir, setrlimit, umask},
    thread::{
        Gid, Uid, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

use crate::{
    capabilities, fork,
    program::{self, Failure},
    seccomp::Filter,
};

/// What of umask a process gets that says nothing of it.
const UMASK: u32 = 0o022;

/// Makes these stdin, stdout and stderr.
pub fn take_stdio([stdin, stdout, stderr]: [&OwnedFd; 3]) -> Result<(), Failure> {
    let take = || {
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)
    };
    take().map_err(Failure::on_the_way("setting up stdio"))
}

/// The limits that are set from outside: OOM score, resource limits.
pub fn limit(process: &Process) -> Result<(), Failure> {
    if let Some(score) = process.oom_score_adj() {
        fs::write(fork::OOM_SCORE_FILE, score.to_string())
            .map_err(Failure::on_the_way("setting the OOM score"))?;
    }
    process.rlimits().iter().flatten().try_for_each(|limit| {
        let value = |value: u64| Some(value).filter(|value| *value != u64::MAX);
        let new = Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) };
        setrlimit(resource(limit), new)
            .map_err(|e| Failure::of_runtime(format!("setting the limit {:?}: {e}", limit.typ())))
    })
}

fn resource(limit: &PosixRlimit) -> Resource {
    match limit.typ() {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// Gives away what we may, once we are inside. What is left to be done before the program runs is to
/// load the filter that is given back, with which little else may be allowed.
pub fn confine(
    process: &Process,
    filter: Option<&LinuxSeccomp>,
    profile: Profile,
) -> Result<Option<Filter>, Failure> {
    let no_new_privileges = process.no_new_privileges() == Some(true);
    umask(Mode::from_raw_mode(process.user().umask().unwrap_or(UMASK)));
    let late = work_in(process.cwd())?;
    let filter = filter.map(Filter::build).transpose().map_err(of_seccomp)?;
    become_user(process.user())?;
    if no_new_privileges {
        set_no_new_privs(true).map_err(Failure::on_the_way("giving up new privileges"))?;
    } else {
        // Without that, loading a filter is a privilege, which the next step gives away.
        load(filter.as_ref())?;
    }
    capabilities::raise().map_err(Failure::on_the_way("raising capabilities"))?;
    let wanted = process.capabilities().clone().unwrap_or_else(program::no_capabilities);
    capabilities::keep_only(&wanted).map_err(Failure::on_the_way("giving up capabilities"))?;
    if late {
        chdir(process.cwd()).map_err(Failure::on_the_way("changing to the working directory"))?;
    }
    stand_inside()?;
    profile.apply()?;
    Ok(filter.filter(|_| no_new_privileges))
}

pub fn load(filter: Option<&Filter>) -> Result<(), Failure> {
    filter.map_or(Ok(()), Filter::load).map_err(of_seccomp)
}

fn of_seccomp(why: String) -> Failure {
    Failure::of_runtime(format!("loading the seccomp profile: {why}"))
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

/// The LSM profile of a program, to be asked for through the host's `/proc`, which nobody in the
/// container can have put something else in the place of.
#[derive(Default)]
pub struct Profile {
    apparmor: Option<(File, String)>,
    selinux: Option<(File, String)>,
}

impl Profile {
    pub fn open(process: &Process) -> Result<Self, Failure> {
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
