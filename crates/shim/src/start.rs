//! How the shim begins and ends: what it makes of its process, where it listens, and when it goes.

use std::{
    fs, io,
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    net::sockopt::socket_acceptconn,
    process::{DumpableBehavior, set_child_subreaper, set_dumpable_behavior, setsid},
};
use shim_api::{
    Life,
    proto::{supervisor_ttrpc::create_supervisor, task_ttrpc::create_task},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::timeout,
};
use ttrpc::r#async::transport::Listener;

use crate::{
    console,
    error::Error,
    exit, fork, handover, heap,
    reaper::Reaper,
    server::Server,
    settings::Settings,
    tasks::{RUNTIME, Tasks},
};

/// The descriptor that the daemon gives us to listen at.
const LISTENER: RawFd = 3;

/// Below that of any container, and above that of the node's own daemons.
const OOM_SCORE: &str = "-998";

/// How long answers under way may take to be sent when the process ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// Makes this process a shim, and serves until it shall end.
pub fn run(settings: &Settings) -> Result<(), Error> {
    let listener = settle(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::kernel("starting the event loop"))?;
    runtime.block_on(serve(settings, listener))
}

/// What must be so before there is a client: then also the pid is on record.
fn settle(settings: &Settings) -> Result<UnixListener, Error> {
    heap::keep_little();
    // It fails if we lead a session already, and then we need no other.
    let _ = setsid();
    // SAFETY: the name is a NUL-terminated string. It only names the thread.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"podbay-shim".as_ptr()) };
    let me = Some(rustix::process::getpid());
    set_child_subreaper(me).map_err(Error::kernel("becoming a subreaper"))?;
    // A copy of us is for a moment in a container's namespaces, and must not be looked into.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Error::kernel("becoming undumpable"))?;
    fork::remember_oom_score();
    // Not everybody may.
    let _ = fs::write(fork::OOM_SCORE_FILE, OOM_SCORE);
    let listener = match &settings.socket {
        Some(path) => console::bind(path).map_err(|e| Error::io("listening at", path, e))?,
        None => inherited()?,
    };
    rustix::process::chdir("/").map_err(Error::kernel("changing to the root"))?;
    forget_another(&settings.dir)?;
    record_life(&settings.dir)?;
    Ok(listener)
}

/// The listening socket at descriptor 3.
fn inherited() -> Result<UnixListener, Error> {
    let doing = "taking the listening socket at descriptor 3";
    // SAFETY: nothing in this process has opened a descriptor yet that it has not closed, so that
    // 3 is what we were started with, and nobody's; or it is closed, which is noticed at once.
    let fd = unsafe { OwnedFd::from_raw_fd(LISTENER) };
    match socket_acceptconn(&fd) {
        Ok(true) => {}
        Ok(false) => return Err(Error::bad("descriptor 3", "it is a socket that does not listen")),
        Err(e) => {
            // It is not ours to close.
            std::mem::forget(fd);
            return Err(Error::kernel(doing)(e));
        }
    }
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(Error::kernel(doing))?;
    Ok(UnixListener::from(fd))
}

/// What runtimes remember of the containers of a shim that was here before us, and was killed.
fn forget_another(dir: &Path) -> Result<(), Error> {
    let runtime = dir.join(RUNTIME);
    match fs::remove_dir_all(&runtime) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", &runtime, e)),
        _ => Ok(()),
    }
}

fn record_life(dir: &Path) -> Result<(), Error> {
    let life = Life::of(std::process::id()).and_then(|life| {
        life.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "/proc does not have us"))
    });
    exit::put(dir, Life::FILE, &life.map_err(Error::kernel("reading our own start time"))?)
}

async fn serve(settings: &Settings, listener: UnixListener) -> Result<(), Error> {
    let starting = "starting to listen";
    listener.set_nonblocking(true).map_err(Error::kernel(starting))?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::kernel(starting))?;
    let reaper = Reaper::start().map_err(Error::kernel("starting to reap"))?;
    let tasks = Arc::new(Tasks::new(settings.dir.clone(), reaper)?);
    let stop = Arc::new(Notify::new());
    let server = Arc::new(Server { tasks: tasks.clone(), stop: stop.clone() });
    let mut ttrpc = ttrpc::r#async::Server::new()
        .add_listener(Listener::from(listener))
        .register_service(create_task(server.clone()))
        .register_service(create_supervisor(server));
    let words = |e: ttrpc::Error| Error::Runtime { doing: starting, words: e.to_string() };
    ttrpc.start().await.map_err(words)?;
    heap::give_back();
    tokio::select! {
        () = stop.notified() => {}
        done = idle_and_terminated(&tasks) => done?,
    }
    // The last answer is on its way. Whoever still waits for another gets none.
    let _ = timeout(FAREWELL, ttrpc.shutdown()).await;
    // They are in the pod's directory, and go with that at the latest.
    let _ = fs::remove_file(settings.dir.join(handover::SOCKET));
    if let Some(path) = &settings.socket {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Returns on a SIGTERM that comes while there are no tasks. With tasks, a shim ends only after
/// them.
async fn idle_and_terminated(tasks: &Tasks) -> Result<(), Error> {
    let mut signals =
        signal(SignalKind::terminate()).map_err(Error::kernel("watching for SIGTERM"))?;
    while signals.recv().await.is_some() {
        match tasks.empty() {
            Ok(()) => break,
            Err(error) => eprintln!("SIGTERM is ignored: {}", error.words()),
        }
    }
    Ok(())
}
