//! Making a container, up to the point where its program would run.
//!
//! It takes two processes. The *preparer*, a copy of the shim that then ends, does what only the host's
//! root may: it makes the cgroup, and takes hold of everything of the host's that the container shall
//! see. Its child, the *init* ([`become_init`]), is born into the container's namespaces, builds the
//! root of what it was given, and gives away its privileges. It waits for a word over the channel that
//! the shim holds the other end of, and then becomes the program; when the shim is gone, it ends.

mod devices;
mod mounts;
mod namespaces;
mod order;
mod root;
mod small;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use oci_spec::runtime::Process;
use rustix::{
    fs::Mode,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitOptions, kill_process, setsid, umask, waitpid},
};
use sys::cgroup::Layout;

use crate::{
    bundle::Bundle,
    confine::{self, Profile},
    fork, hooks,
    program::{self, Failure},
    pty,
    seccomp::Filter,
};
use order::Order;

/// What the init says when it is ready; anything else that it says is a [`Failure`].
const READY: &[u8] = b"\0";

/// What lets the init run its program.
const GO: &[u8] = b"g";

/// A container to be made.
pub struct Wanted<'a> {
    pub id: &'a str,
    pub bundle: &'a Bundle,
    /// Where to send the terminal, if it has one.
    pub console: Option<&'a Path>,
    pub no_pivot: bool,
    pub layout: &'a Layout,
}

/// The descriptors that the init gets.
pub struct Given {
    /// stdin, stdout and stderr.
    pub stdio: [OwnedFd; 3],
    /// Over which it is told to go on, and tells why its program does not run.
    pub channel: OwnedFd,
}

/// Tells an init that waits to run its program. It has ended if that fails.
pub fn let_run(channel: impl std::os::fd::AsFd) -> std::io::Result<()> {
    rustix::net::send(channel, GO, rustix::net::SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What the preparer does: makes the container, and gives the pid of its init, which is left an orphan.
/// If it fails, there is no init; what else was made is for an unmake.
pub fn make(wanted: &Wanted<'_>, given: Given) -> Result<u32, Failure> {
    let order = Order::prepare(wanted)?;
    let (ready, tell) = pipe()?;
    let (wait, ahead) = pipe()?;
    let own = order.namespaces.enter(order.hooks())?;
    let into = order.born_into(wanted.layout)?;
    let born = fork::birth(order.namespaces.at_birth(), into.as_ref().map(|fd| fd.as_fd()));
    let pid = born.map_err(Failure::on_the_way("starting the init"))?;
    if pid == 0 {
        drop((ready, ahead));
        fork::exit(be_init(order, &given, tell, wait));
    }
    drop((tell, wait, given));
    let made = own
        .leave()
        .and_then(|()| order.attend(pid))
        .and_then(|()| go_ahead(ahead, pid))
        .and_then(|()| hear(ready));
    made.inspect_err(|_| end(pid)).map(|()| pid)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe_with(PipeFlags::CLOEXEC).map_err(Failure::on_the_way("making a pipe"))
}

/// Tells the init who it is on the host, and that it may go on.
fn go_ahead(ahead: OwnedFd, pid: u32) -> Result<(), Failure> {
    let told = File::from(ahead).write_all(&pid.to_ne_bytes());
    told.map_err(Failure::on_the_way("telling the init to go ahead"))
}

/// In the init. Without a word there is nobody to be made for any more.
fn wait_for_go_ahead(wait: OwnedFd) -> u32 {
    let mut pid = [0; 4];
    match File::from(wait).read_exact(&mut pid) {
        Ok(()) => u32::from_ne_bytes(pid),
        Err(_) => fork::exit(1),
    }
}

fn hear(ready: OwnedFd) -> Result<(), Failure> {
    let mut told = Vec::new();
    let mut first = [0];
    let mut ready = File::from(ready);
    let hearing = "hearing from the init";
    if ready.read(&mut first).map_err(Failure::on_the_way(hearing))? == 0 {
        return Err(Failure::of_runtime("the init ended without a word".to_owned()));
    }
    if first == READY {
        return Ok(());
    }
    told.push(first[0]);
    ready.read_to_end(&mut told).map_err(Failure::on_the_way(hearing))?;
    let words = || Failure::of_runtime(String::from_utf8_lossy(&told).into_owned());
    Err(serde_json::from_slice(&told).unwrap_or_else(|_| words()))
}

/// Ends an init that came to nothing, so that it is not our heirs' to find.
fn end(pid: u32) {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return };
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
}

/// Returns only if it fails, with an exit status.
fn be_init(mut order: Order<'_>, given: &Given, tell: OwnedFd, wait: OwnedFd) -> i32 {
    let pid = wait_for_go_ahead(wait);
    let mut process = order.process.clone();
    let filter = order.filter();
    let set_up = become_init(&mut order, given, pid, &mut process);
    let confined = set_up.and_then(|profile| confine::confine(&process, filter.as_ref(), profile));
    let late = match confined {
        Ok(late) => late,
        Err(failure) => {
            failure.report(tell.as_fd());
            return failure.code;
        }
    };
    if rustix::io::write(&tell, READY).is_err() {
        return 1;
    }
    drop(tell);
    let failure = run(&order, pid, &process, late.as_ref(), &given.channel);
    failure.report(given.channel.as_fd());
    failure.code
}

/// Waits for the word, and becomes the program. Returns only if it fails.
fn run(
    order: &Order<'_>,
    pid: u32,
    process: &Process,
    late: Option<&Filter>,
    channel: &OwnedFd,
) -> Failure {
    let mut word = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut word)) {
        Ok(1) => {}
        // Nobody will ever say it: the shim is gone, or has given us up.
        _ => fork::exit(0),
    }
    let hooks = order.spec.hooks().as_ref().and_then(|hooks| hooks.start_container().clone());
    let ran = hooks::run(hooks.as_deref(), &order.state("created", pid));
    ran.and_then(|()| confine::load(late))
        .map_or_else(|failure| failure, |()| program::execute(process))
}

/// From a process that was just born to one that is where, but not yet who, the program shall be.
fn become_init(
    order: &mut Order<'_>,
    given: &Given,
    pid: u32,
    process: &mut Process,
) -> Result<Profile, Failure> {
    let [stdin, stdout, stderr] = &given.stdio;
    confine::take_stdio([stdin, stdout, stderr])?;
    setsid().map_err(Failure::on_the_way("making a session"))?;
    small::own_keyring(order.id);
    umask(Mode::empty());
    order.join_cgroup()?;
    let profile = Profile::open(process)?;
    order.namespaces.unshare()?;
    let root = order.tree.hold()?;
    order.namespaces.become_root()?;
    small::name_host(order)?;
    small::set_sysctls(order)?;
    order.tree.build(&root, process.cwd())?;
    hooks::run(order.create_container_hooks(), &order.state("creating", pid))?;
    root.enter(order.no_pivot)?;
    if let Some(console) = &order.console {
        take_terminal(&root.dir, console, process)?;
    }
    root.close(&order.spec)?;
    fork::close_on_exec();
    Ok(profile)
}

fn take_terminal(
    root: &OwnedFd,
    console: &UnixStream,
    process: &mut Process,
) -> Result<(), Failure> {
    let size = process.console_size().map_or_else(Default::default, |size| shim_api::Size {
        width: u16::try_from(size.width()).unwrap_or(u16::MAX),
        height: u16::try_from(size.height()).unwrap_or(u16::MAX),
    });
    pty::take(console, size, process.user().uid())?;
    program::name_terminal(process);
    devices::bind_console(root)
}
