//! Puts together what is served, from the arguments.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use controllers::{Controller, Pause, PinnedNamespaces, Program, Shims};
use serving::{lock, patiently};
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
    #[error(transparent)]
    Serving(#[from] serving::Error),
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
        matches!(self, Self::Store(store::Error::InUse(_)))
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
    folders.iter().chain([&arguments.root]).try_for_each(|dir| serving::make_dir(dir))?;
    let lock =
        patiently(|| lock(&arguments.state, "sandboxer.lock"), serving::Error::is_held).await?;
    let store =
        patiently(|| Ok(Store::open(&arguments.root, &arguments.state)?), Error::is_held).await?;
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
