//! `podbay demo`: a private podbayd, one pod, what can be done with it, and nothing left at the
//! end. Told step by step, with what each step took. It touches no other podbayd: files, socket,
//! bridge and cgroup are its own.

mod busybox;
mod daemon;
mod place;
mod pod;
mod story;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::args::Demo;
use crate::error::{DemoError, Error};
use crate::find;
use crate::link::Link;
use crate::verb::{end_pod, remove_image};
use crate::words::{short, size};

use busybox::Busybox;
use daemon::Daemon;
use place::Place;
use story::Story;

/// The bridge of the demo; podbayd makes and removes it.
const BRIDGE: &str = "pbdemo0";

/// How long the container gets to end by itself. It does so at once.
const GRACE: Duration = Duration::from_secs(2);

/// How many lines of its log are waited for.
const LINES: usize = 3;

pub async fn run(demo: Demo, out: &mut dyn Write) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(DemoError::NotRoot.into());
    }
    let program = daemon::find(demo.podbayd)?;
    let busybox = busybox::find()?;
    if place::bridge_is_there(BRIDGE) {
        return Err(DemoError::BridgeTaken(BRIDGE).into());
    }
    let place = Place::make()?;
    let mut daemon = Daemon::new(program, &place, BRIDGE, &demo.subnet)?;
    let mut story = Story::begin(out)?;
    let shown = tokio::select! {
        shown = show(&mut story, &mut daemon, &place, busybox) => shown,
        () = interrupted() => Err(Error::Interrupted),
    };
    let path = place.path().to_owned();
    let cleaned = tokio::select! {
        cleaned = clean(&mut story, daemon, place) => cleaned,
        () = interrupted() => Err(left(&path, "you were in a hurry")),
    };
    shown.and(cleaned)?;
    story.end()
}

/// Ends when a person or the system asks us to.
async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn left(place: &Path, why: &str) -> Error {
    DemoError::Left(format!("{why}; see {}", place.display())).into()
}

async fn show(
    story: &mut Story<'_>,
    daemon: &mut Daemon,
    place: &Place,
    busybox: Busybox,
) -> Result<(), Error> {
    let begun = Instant::now();
    let link = daemon.start().await?;
    let about = format!("a private podbayd, with all its files in {}", place.path().display());
    story.step("daemon up", begun, &about)?;

    let step = Instant::now();
    let about = format!("{} from {}", size(busybox.size()), busybox.path.display());
    let image = pod::make_image(&link, busybox).await?;
    story.step("image made", step, &about)?;

    let step = Instant::now();
    let sandbox = pod::run(&link, place).await?;
    let about = format!("pod {}, address {}", short(&sandbox.id), sandbox.address);
    story.step("pod up", step, &about)?;

    let step = Instant::now();
    let container = pod::start(&link, &sandbox, image).await?;
    let about = format!("container {}, which prints a line each second", short(&container));
    story.step("container up", step, &about)?;
    story.sum("From nothing to a running pod", begun)?;

    look(story, &link, place, &container).await
}

/// What can be seen of a container that runs.
async fn look(
    story: &mut Story<'_>,
    link: &Link,
    place: &Place,
    container: &str,
) -> Result<(), Error> {
    let step = Instant::now();
    let lines = pod::lines(&pod::log(place), LINES).await?;
    story.step("log", step, "its first lines, from the log file")?;
    story.quote(&lines)?;

    for command in [&["hostname"][..], &["ip", "addr", "show", "eth0"]] {
        let step = Instant::now();
        let said = pod::exec(link, container, command).await?;
        story.step("exec", step, &command.join(" "))?;
        story.quote(&said)?;
    }

    let step = Instant::now();
    let usage = pod::usage(link, container).await?;
    story.step("stats", step, &usage)
}

/// Takes away whatever there is, however far the demo came. Goes on after a failure, and tells of
/// the first.
async fn clean(story: &mut Story<'_>, mut daemon: Daemon, place: Place) -> Result<(), Error> {
    let step = Instant::now();
    let emptied = match daemon.was_up() {
        true => empty(&mut daemon).await,
        false => Ok(()),
    };
    if emptied.is_ok() && daemon.was_up() {
        story.step("pod gone", step, "stopped and removed, and its image too")?;
    }
    let step = Instant::now();
    let stopped = daemon.stop().await;
    if let Ok(true) = stopped {
        story.step("daemon gone", step, "ended by SIGTERM")?;
    }
    let path = place.path().to_owned();
    let removed = place.unmake(BRIDGE).await.map_err(|why| left(&path, &why));
    emptied?;
    stopped?;
    removed
}

/// Removes all pods and the image. A daemon that died meanwhile is started once more, since only
/// it knows what it has made.
async fn empty(daemon: &mut Daemon) -> Result<(), Error> {
    let link = daemon.start().await?;
    for pod in find::pods(&link).await? {
        end_pod(&link, &pod.id, GRACE).await?;
    }
    remove_image(&link, pod::IMAGE).await
}
