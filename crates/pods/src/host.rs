//! What pods and containers are made with: the other rooms, and where things are on this machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use controllers::Controller;
use images::Images;
use names::{ContainerId, PodId};
use shim_api::Shim;
use store::Records;
use sys::cgroup::Layout;

use crate::{
    Cgroups, Error, container::ContainerRecord, features::Abilities, names::Names, plan::PodName,
    pod::PodRecord, spare::Spare,
};

/// What the daemon gives to the pods.
pub struct Host {
    /// The folder for this boot.
    pub state: PathBuf,
    pub layout: Layout,
    /// Who makes the cgroups of pods.
    pub cgroups: Cgroups,
    /// Whether this node can make user namespaces, and show the files of images as theirs.
    pub user_namespaces: bool,
    pub handlers: BTreeMap<String, Handler>,
    /// By the names that handlers and records have for them.
    pub controllers: BTreeMap<String, Arc<dyn Controller>>,
    pub default_handler: String,
    /// The image of the pause container; none for the built-in.
    pub pause_image: Option<String>,
    /// The root filesystem of the built-in pause: the same for all pods, and read-only.
    pub pause_rootfs: PathBuf,
    pub images: Images,
    pub cni: cni::Cni,
    /// The built-in network, where it stands in for a missing CNI configuration.
    pub bridge: Option<network::Bridge>,
    /// Whether a node with nothing but that is ready for a kubelet's pods.
    pub bridge_is_enough: bool,
    /// What this machine and this process can give a container.
    pub node: oci::Node,
    /// The id of this boot: what was made in another is gone.
    pub boot: String,
    /// How long a call to a shim may take beyond what the call itself asks for.
    pub shim_deadline: Duration,
    pub store: store::Store,
}

/// What a CRI runtime handler stands for here.
#[derive(Clone, Debug)]
pub struct Handler {
    /// One of [`Host::controllers`].
    pub controller: String,
    /// A runc-like program; empty for the built-in runtime.
    pub runtime: String,
    /// What that can do.
    pub abilities: Abilities,
}

/// The host, and what is shared by all that is made on it.
pub(crate) struct World {
    pub host: Host,
    pub pod_records: Records<PodRecord>,
    pub container_records: Records<ContainerRecord>,
    pub pod_names: Names<PodName, PodId>,
    pub container_names: Names<(PodId, String, u32), ContainerId>,
    /// The network namespace of the next pod.
    pub spare: Spare,
}

impl World {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            pod_records: host.store.records("pods", crate::pod::RECORD_VERSION),
            container_records: host.store.records("containers", crate::container::RECORD_VERSION),
            pod_names: Names::default(),
            container_names: Names::default(),
            spare: Spare::default(),
            host,
        }
    }

    /// The handler of this name; the empty name is the default one's. Gives its name too.
    pub(crate) fn handler(&self, name: &str) -> Result<(String, &Handler), Error> {
        let name = if name.is_empty() { &self.host.default_handler } else { name };
        match self.host.handlers.get(name) {
            Some(handler) => Ok((name.to_owned(), handler)),
            None => Err(Error::UnknownHandler {
                name: name.to_owned(),
                offered: self.host.handlers.keys().cloned().collect(),
            }),
        }
    }

    /// The controller that the pod was made with, whatever its handler has become.
    pub(crate) fn controller(&self, pod: &PodRecord) -> Result<Arc<dyn Controller>, Error> {
        self.host.controllers.get(&pod.controller).cloned().ok_or_else(|| {
            let name = &pod.controller;
            let id = pod.id.short();
            Error::precondition(format!("pod {id} was made with {name:?}, which is not configured any more; configure it again to remove the pod"))
        })
    }

    /// A runtime by path is about to put a process into a cgroup: what that would wait for begins now,
    /// beside what comes before it. Until it is over no cgroup can be made. The built-in one does not
    /// wait for it.
    pub(crate) fn expect_a_move(&self, runtime: &str) {
        if !runtime.is_empty() {
            let layout = self.host.layout.clone();
            tokio::task::spawn_blocking(move || sys::cgroup::moves::expect(&layout));
        }
    }

    /// Where containers of the pod are run.
    pub(crate) fn shim(&self, pod: &PodRecord) -> Result<Shim, Error> {
        match &pod.started {
            Some(started) => Ok(Shim::new(started.address.clone())),
            None => Err(Error::precondition(format!("pod {} does not run", pod.id.short()))),
        }
    }

    pub(crate) fn state_dir(&self, pod: &PodId) -> PathBuf {
        self.host.state.join("pods").join(pod.as_str())
    }

    /// Where the pod's network namespace is pinned.
    pub(crate) fn netns(&self, pod: &PodId) -> PathBuf {
        self.host.state.join("netns").join(pod.as_str())
    }

    pub(crate) fn userns(&self, pod: &PodId) -> PathBuf {
        self.host.state.join("userns").join(pod.as_str())
    }

    /// Removes a cgroup, and kills what a supervisor that was killed has left in it.
    pub(crate) async fn unmake_cgroup(&self, path: &Path) -> Result<(), Error> {
        crate::cgroups::end(&self.host.layout, path).await
    }

    /// The image of the sandbox, pulled if it is not here.
    pub(crate) async fn ensure_image(&self, name: &str) -> Result<names::Digest, Error> {
        if let Some(image) = self.host.images.find(name) {
            return Ok(image.id.clone());
        }
        let reference = name.parse().map_err(|bad: names::BadReference| {
            Error::rejected("images.pause_image", bad.to_string())
        })?;
        Ok(self.host.images.pull(&reference, None, None).await?)
    }

    pub(crate) fn cgroup(&self, path: &Path) -> Result<sys::cgroup::Cgroup, Error> {
        crate::cgroups::cgroup(&self.host.layout, path)
    }
}

/// 32 random bytes, for an id.
pub(crate) fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    crate::error::Context::on(drawn, "drawing an id from", "getrandom(2)")?;
    Ok(bytes)
}
