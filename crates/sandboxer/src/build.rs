//! Puts together what is served, from the arguments.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use controllers::{Controller, Pause, PinnedNamespaces, Program, Shims};
use store::Store;
use sys::cgroup::Layout;

use crate::{
    Arguments, Grouping, Kind,
    sandboxes::{Sandboxes, World},
};

/// What is served.
pub(crate) struct Parts {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) shims: Shims,
    /// Held for as long as this process lives: no other may use the same state folder.
    pub(crate) _lock: fs::File,
}

/// Why podbay-sandboxer could not start, or serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--log is {filter:?}, which is no filter: {why}")]
    BadLogFilter { filter: String, why: String },
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name} is in none of {}; install it there or give --{}", list(.places), option(.name))]
    NoProgram { name: &'static str, places: Vec<PathBuf> },
    #[error("somebody answers at {}; give each podbay-sandboxer its own --socket", .0.display())]
    SocketInUse(PathBuf),
    #[error("another podbay-sandboxer uses {}; give each its own --state", .0.display())]
    StateInUse(PathBuf),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Controller(#[from] controllers::Error),
    #[error("taking up the sandboxes of before")]
    Recovery(#[from] crate::error::Error),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }

    /// Whether another has what this one needs, or seems to.
    pub(crate) fn is_held(&self) -> bool {
        matches!(
            self,
            Self::SocketInUse(_) | Self::StateInUse(_) | Self::Store(store::Error::InUse(_))
        )
    }
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn option(name: &str) -> &str {
    name.trim_start_matches("podbay-")
}

pub(crate) async fn build(arguments: &Arguments) -> Result<Parts, Error> {
    let folders = ["sandboxes", "shims"].map(|name| arguments.state.join(name));
    folders.iter().chain([&arguments.root]).try_for_each(|dir| make_dir(dir))?;
    let lock = patiently(|| lock(&arguments.state)).await?;
    let store = patiently(|| Ok(Store::open(&arguments.root)?)).await?;
    let [folder, sockets] = folders;
    let grouping = match arguments.shim_grouping {
        Grouping::Pod => controllers::Grouping::Pod,
        Grouping::Node => controllers::Grouping::Node,
    };
    let shims = Shims::new(own(arguments.shim.as_deref(), "podbay-shim")?, sockets, grouping);
    let world = World {
        controller: controller(arguments, &shims)?,
        store,
        folder,
        program: program(arguments)?,
        boot: controllers::boot(),
        name: arguments.name.clone().unwrap_or_else(|| arguments.kind.name().to_owned()),
    };
    Ok(Parts { sandboxes: Sandboxes::new(world), shims, _lock: lock })
}

fn controller(arguments: &Arguments, shims: &Shims) -> Result<Arc<dyn Controller>, Error> {
    let layout = Layout::detect().map_err(|e| Error::io("reading the cgroups of", "/proc", e))?;
    let node = controllers::node(&layout);
    let pause = Pause::new(shims.clone(), node, layout, arguments.shim_deadline);
    Ok(match arguments.kind {
        Kind::Namespaces => Arc::new(PinnedNamespaces::new(shims.clone(), pause)),
    })
}

/// The init of shared pid namespaces.
fn program(arguments: &Arguments) -> Result<Program, Error> {
    let rootfs = arguments.root.join("pause");
    controllers::pause_rootfs(&rootfs, &own(arguments.pause.as_deref(), "podbay-pause")?)?;
    Ok(Program { rootfs, args: vec!["/pause".to_owned()], env: Vec::new() })
}

fn own(given: Option<&Path>, name: &'static str) -> Result<PathBuf, Error> {
    controllers::own_program(given.unwrap_or_else(|| Path::new("")), name)
        .map_err(|places| Error::NoProgram { name, places })
}

/// Makes a folder that only root may look into, with those above it.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::io("making the folder", path, source))
}

/// How long what a killed process held may still be held: its last child, between fork and exec, has
/// inherited it.
const INHERITED: Duration = Duration::from_secs(2);

/// Tries again, for a short while, what somebody else seems to hold.
pub(crate) async fn patiently<T>(
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + INHERITED;
    loop {
        match attempt() {
            Err(error) if error.is_held() && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

fn lock(state: &Path) -> Result<fs::File, Error> {
    let path = state.join("sandboxer.lock");
    let file = fs::File::create(&path).map_err(|e| Error::io("opening", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::StateInUse(state.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(Error::io("locking", path, source)),
    }
}
