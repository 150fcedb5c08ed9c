//! Makes the rooms from the configuration, in order, each with only what it needs to know.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use config::{Config, Fallback};
use controllers::{
    Controller, Grouping, Pause, PinnedNamespaces, Prepare, Sandboxer, SandboxerConfig, Shims,
};
use cri::Facts;
use images::Images;
use pods::{Abilities, Features, Handler, Host, Pods};
use registry::Registry;
use store::Store;
use sys::cgroup::Layout;

use serving::{lock, patiently};

use crate::{apparmor, cgroups, features, find};

/// What is served.
pub(crate) struct Daemon {
    pub(crate) pods: Pods,
    pub(crate) images: Images,
    pub(crate) facts: Facts,
    pub(crate) shims: Shims,
    pub(crate) streams: Arc<streaming::Server>,
    /// Held for as long as podbayd lives: no other may use the same state folder.
    _lock: fs::File,
}

/// Why podbayd could not start, or serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("`log` is {filter:?}, which is no filter: {why}")]
    BadLogFilter { filter: String, why: String },
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{name} is in none of {}; install it there or set its key in the configuration", list(.places))]
    NoProgram { name: &'static str, places: Vec<PathBuf> },
    #[error("the runtime {runtime:?} of the default handler {name:?} is not on this machine")]
    NoDefaultRuntime { name: String, runtime: String },
    #[error(
        "cgroups.driver is \"systemd\", which needs {needs}; set it to \"auto\", or to \"cgroupfs\""
    )]
    NoSystemd { needs: &'static str },
    #[error("cgroups.parent")]
    BadSlice(#[from] systemd::BadSlice),
    #[error(transparent)]
    Serving(#[from] serving::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Images(#[from] images::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Bridge(#[from] network::Error),
    #[error("network.bridge.subnets")]
    BadSubnet(#[source] network::BadSubnet),
    #[error(transparent)]
    Controllers(#[from] controllers::Error),
    #[error(transparent)]
    Streaming(#[from] streaming::Error),
    #[error(transparent)]
    Pods(Box<pods::Error>),
}

impl From<pods::Error> for Error {
    fn from(error: pods::Error) -> Self {
        Self::Pods(Box::new(error))
    }
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }

    /// Whether another podbayd has what this one needs, or seems to.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Store(store::Error::InUse(_)) | Self::Images(images::Error::InUse(_)))
    }
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What only root may look into.
const CLOSED: u32 = 0o700;
/// What others may go through, if they know where to, but not look into: to what a pod's own root, who
/// is nobody on the host, may have.
const PASSAGE: u32 = 0o711;

/// Makes a folder of ours, with those above it. One that is there, made by an earlier version or by an
/// administrator, gets the mode too (CVE-2024-25621).
fn make_own(path: &Path, mode: u32) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    let made = made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.map_err(|source| Error::io("making the folder", path, source))
}

pub(crate) async fn build(config: &Config) -> Result<Daemon, Error> {
    make_own(&config.root, CLOSED)?;
    for dir in [&config.state, &config.state.join("pods")] {
        make_own(dir, PASSAGE)?;
    }
    for name in ["shims", "netns", "userns"] {
        serving::make_dir(&config.state.join(name))?;
    }
    let handlers = handlers(config)?;
    let lock = patiently(|| lock(&config.state, "podbayd.lock"), serving::Error::is_held).await?;
    let store = patiently(|| Ok(Store::open(&config.root, &config.state)?), Error::is_held).await?;
    let registry = registry(config)?;
    let folder = config.root.join("images");
    let pause_image = Some(config.images.pause_image.clone()).filter(|image| !image.is_empty());
    let keep: Vec<_> = pause_image.iter().cloned().collect();
    let open = || {
        let config = images::Config { keep: keep.clone(), ..images::Config::new(&folder) };
        Ok(Images::open(config, registry.clone())?)
    };
    let images = patiently(open, Error::is_held).await?;
    let layout = Layout::detect().map_err(|e| Error::io("reading the cgroups of", "/proc", e))?;
    let cgroups = cgroups::of(config, &layout).await?;
    let systemd_cgroups = cgroups.driver() == pods::Driver::Systemd;
    let node = controllers::node(&layout);
    if node.apparmor {
        apparmor::load_or_tell().await;
    }
    let shims = shims(config)?;
    let host = Host {
        state: config.state.clone(),
        handlers,
        controllers: controllers(&shims, config, &node, &layout),
        layout,
        cgroups,
        user_namespaces: sys::userns::can_map(&folder),
        default_handler: config.default_handler.clone(),
        pause_image,
        pause_rootfs: pause_rootfs(config)?,
        images: images.clone(),
        cni: cni(config),
        bridge: bridge(config)?,
        bridge_is_enough: config.network.fallback == Fallback::Bridge,
        node: node.clone(),
        boot: controllers::boot(),
        shim_deadline: config.shim_deadline.0,
        store,
    };
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        systemd_cgroups,
        config: serde_json::to_string(config).unwrap_or_default(),
    };
    let pods = Pods::new(host);
    let streams = Arc::new(streams(config, &pods).await?);
    Ok(Daemon { pods, images, facts, shims, streams, _lock: lock })
}

async fn streams(config: &Config, pods: &Pods) -> Result<streaming::Server, Error> {
    let settings = streaming::Config {
        address: config.streaming.address,
        idle: config.streaming.idle.0,
        tls: config.streaming.tls().map(|(certificate, key)| streaming::Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }),
        ..streaming::Config::default()
    };
    Ok(streaming::Server::bind(settings, Arc::new(cri::Streams::new(pods.clone()))).await?)
}

fn registry(config: &Config) -> Result<Registry, Error> {
    Ok(Registry::new(registry::Config {
        hosts_dirs: config.images.hosts_dirs.clone(),
        progress_timeout: config.images.progress_deadline.0,
        ..registry::Config::default()
    })?)
}

fn cni(config: &Config) -> cni::Cni {
    cni::Cni::new(cni::Config {
        conf_dir: config.network.conf_dir.clone(),
        bin_dirs: config.network.bin_dirs.clone(),
        cache_dir: config.network.cache_dir.clone(),
        deadline: config.network.deadline.0,
    })
}

fn bridge(config: &Config) -> Result<Option<network::Bridge>, Error> {
    if config.network.fallback == Fallback::None {
        return Ok(None);
    }
    let bridge = &config.network.bridge;
    let subnets = bridge.subnets.iter().map(|text| text.parse().map_err(Error::BadSubnet));
    Ok(Some(network::Bridge::new(network::Config {
        bridge: bridge.name.clone(),
        subnets: subnets.collect::<Result<_, _>>()?,
        ..network::Config::new(config.root.join("network"))
    })?))
}

/// The controllers that handlers may name.
fn controllers(
    shims: &Shims,
    config: &Config,
    node: &oci::Node,
    layout: &Layout,
) -> BTreeMap<String, Arc<dyn Controller>> {
    let within = config.shim_deadline.0;
    let pause = || Pause::new(shims.clone(), node.clone(), layout.clone(), within);
    let namespaces = PinnedNamespaces::new(shims.clone(), pause());
    let mut all: BTreeMap<String, Arc<dyn Controller>> = [
        (PAUSE.to_owned(), Arc::new(pause()) as Arc<dyn Controller>),
        (NAMESPACES.to_owned(), Arc::new(namespaces)),
    ]
    .into();
    for (name, sandboxer) in &config.sandboxers {
        all.insert(kept_by(name), Arc::new(Sandboxer::new(client_of(name, sandboxer))));
    }
    all
}

fn client_of(name: &str, sandboxer: &config::Sandboxer) -> SandboxerConfig {
    let called = if sandboxer.name.is_empty() { name } else { &sandboxer.name };
    SandboxerConfig {
        name: name.to_owned(),
        address: sandboxer.socket().to_owned(),
        sandboxer: called.to_owned(),
        deadline: sandboxer.deadline.0,
        start_deadline: sandboxer.start_deadline.0,
        grace: sandboxer.grace.0,
        prepare: match sandboxer.prepare {
            config::Prepare::None => Prepare::None,
            config::Prepare::ExtensionsTasks => Prepare::ExtensionsTasks,
        },
    }
}

/// What records call the controllers in this process.
const PAUSE: &str = "pause";
const NAMESPACES: &str = "namespaces";

/// What records call the controller of a sandboxer.
fn kept_by(sandboxer: &str) -> String {
    format!("sandboxer/{sandboxer}")
}

/// What records call the controller that the handler picks.
fn name_of(handler: &config::Handler) -> String {
    match handler.controller {
        config::Controller::Pause => PAUSE.to_owned(),
        config::Controller::Namespaces => NAMESPACES.to_owned(),
        config::Controller::Sandboxer => kept_by(&handler.sandboxer),
    }
}

fn shims(config: &Config) -> Result<Shims, Error> {
    let program = own(&config.shim, "podbay-shim")?;
    let grouping = match config.shim_grouping {
        config::Grouping::Pod => Grouping::Pod,
        config::Grouping::Node => Grouping::Node,
    };
    Ok(Shims::new(program, config.state.join("shims"), grouping))
}

/// The handlers whose runtimes are there; the default one's must be.
fn handlers(config: &Config) -> Result<BTreeMap<String, Handler>, Error> {
    let mut handlers = BTreeMap::new();
    for (name, handler) in &config.handlers {
        let runtime = match handler.runtime.as_str() {
            "" => Some(String::new()),
            runtime => find::program(runtime).map(|path| path.display().to_string()),
        };
        match runtime {
            Some(runtime) => {
                let abilities = abilities(config, handler, &runtime);
                let controller = name_of(handler);
                handlers.insert(name.clone(), Handler { controller, runtime, abilities });
            }
            None if *name == config.default_handler => {
                let runtime = handler.runtime.clone();
                return Err(Error::NoDefaultRuntime { name: name.clone(), runtime });
            }
            None => tracing::info!(
                handler = name,
                runtime = handler.runtime,
                "not offered: its runtime is not here"
            ),
        }
    }
    Ok(handlers)
}

/// What whoever runs the handler's containers can do: as it says itself, or as we are told where it
/// cannot be asked.
fn abilities(config: &Config, handler: &config::Handler, runtime: &str) -> Abilities {
    if handler.controller == config::Controller::Sandboxer {
        let sandboxer = config.sandboxers.get(&handler.sandboxer);
        let said = sandboxer.map_or(&[][..], |sandboxer| &sandboxer.features);
        return Abilities::known(Features {
            recursive_read_only: said.contains(&config::Feature::RecursiveReadOnlyMounts),
            user_namespaces: false,
        });
    }
    match runtime {
        "" => Abilities::known(Features { recursive_read_only: true, user_namespaces: true }),
        program => Abilities::asked(features::of(program.to_owned())),
    }
}

pub(crate) fn own(configured: &Path, name: &'static str) -> Result<PathBuf, Error> {
    controllers::own_program(configured, name).map_err(|places| Error::NoProgram { name, places })
}

fn pause_rootfs(config: &Config) -> Result<PathBuf, Error> {
    let rootfs = config.root.join("pause");
    controllers::pause_rootfs(&rootfs, &own(&config.pause, "podbay-pause")?)?;
    Ok(rootfs)
}
