//! The `namespaces` controller: the pod's namespaces are pinned to files, and no process holds them.
//! Only a pid namespace cannot live without one: where containers share it, the pause program is
//! started as its init, and then alone.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use names::{Nanos, PodId};
use oci::Namespace;
use serde::{Deserialize, Serialize};
use sys::{
    namespaces::Wanted,
    pin::{self, Kind},
};
use tokio::sync::watch;

use crate::{
    Controller, Error, Exit, Namespaces, Pause, PidNamespace, Place, Sandbox, Shims, Started,
    Status, error::Context,
};

/// What a sandbox ended with that nobody saw end.
const UNSEEN: i32 = 255;

/// Sandboxes that are namespaces and nothing else.
pub struct PinnedNamespaces {
    shims: Shims,
    /// Runs the init of a shared pid namespace.
    pause: Pause,
    ends: Ends,
}

/// Who waits for the end of which sandbox. Without a process, it is a Stop that ends one.
#[derive(Default)]
struct Ends(Mutex<HashMap<PodId, watch::Sender<Option<Exit>>>>);

impl Ends {
    fn of(&self, pod: &PodId) -> watch::Receiver<Option<Exit>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(pod.clone()).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    fn tell(&self, pod: &PodId, exit: Exit) {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
        if let Some(told) = told {
            told.send_replace(Some(exit));
        }
    }
}

impl PinnedNamespaces {
    /// `pause` must have the same shims.
    pub fn new(shims: Shims, pause: Pause) -> Self {
        Self { shims, pause, ends: Ends::default() }
    }

    async fn make_init(&self, sandbox: &Sandbox, made: &Made) -> Result<(), Error> {
        let files = Files(&sandbox.place.dir);
        let join = |own: bool, path: PathBuf| match own {
            true => Namespace::Join(path),
            false => Namespace::Host,
        };
        let namespaces = oci::Namespaces {
            network: sandbox.netns.clone().map_or(Namespace::Host, Namespace::Join),
            ipc: join(made.ipc, files.pin(Kind::Ipc)),
            uts: join(made.uts, files.pin(Kind::Uts)),
            pid: Namespace::Own,
            user: sandbox.user_namespace.clone(),
        };
        // The sysctls were set when the namespaces were made.
        let sandbox = Sandbox { sysctls: Default::default(), ..sandbox.clone() };
        self.pause.create_in(&sandbox, namespaces).await
    }

    async fn state(&self, place: &Place, made: Made) -> Result<Status, Error> {
        let files = Files(&place.dir);
        if let Some(exit) = made.exited {
            return Ok(Status::Stopped(exit));
        }
        let whole = (!made.ipc || pin::is_pinned(&files.pin(Kind::Ipc), Kind::Ipc))
            && (!made.uts || pin::is_pinned(&files.pin(Kind::Uts), Kind::Uts));
        if !whole {
            return Ok(Status::Stopped(Exit { code: UNSEEN, at: names::now() }));
        }
        if made.init {
            return match self.pause.status(place).await? {
                Status::Gone => Ok(Status::Stopped(Exit { code: UNSEEN, at: names::now() })),
                status => Ok(status),
            };
        }
        Ok(if made.started.is_some() { Status::Running } else { Status::Created })
    }
}

#[async_trait]
impl Controller for PinnedNamespaces {
    async fn create(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let files = Files(&sandbox.place.dir);
        let made = Made {
            ipc: !sandbox.host_ipc,
            // A pod on the host's network has the host's name.
            uts: sandbox.netns.is_some(),
            init: sandbox.pid == PidNamespace::Pod,
            network: sandbox.netns.clone(),
            started: None,
            exited: None,
        };
        files.write(&made)?;
        let (ipc, uts) = (files.pin(Kind::Ipc), files.pin(Kind::Uts));
        let sysctls: Vec<_> =
            sandbox.sysctls.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let of_network = sysctls.iter().any(|(name, _)| name.starts_with("net"));
        sys::namespaces::make(&Wanted {
            ipc: made.ipc.then_some(&ipc),
            uts: made.uts.then_some((&uts, &sandbox.hostname)),
            owner: sandbox.user_namespace.as_ref().and_then(owner),
            network: sandbox.netns.as_deref().filter(|_| of_network),
            sysctls: &sysctls,
        })
        .on("making the namespaces of the pod below", files.folder())?;
        match made.init {
            true => self.make_init(sandbox, &made).await,
            false => self.shims.spawn(&sandbox.place).await.map(drop),
        }
    }

    async fn start(&self, place: &Place) -> Result<Started, Error> {
        let files = Files(&place.dir);
        let mut made = files.read()?.ok_or_else(|| Error::NoSandbox(place.id.clone()))?;
        let init = match made.init {
            true => Some(self.pause.start(place).await?),
            false => None,
        };
        let at = *made.started.get_or_insert_with(names::now);
        files.write(&made)?;
        let pinned = |own: bool, kind| own.then(|| files.pin(kind));
        Ok(Started {
            pid: init.as_ref().and_then(|init| init.pid),
            at,
            address: self.shims.of(&place.id).address().clone(),
            namespaces: Namespaces {
                network: made.network.clone(),
                ipc: pinned(made.ipc, Kind::Ipc),
                uts: pinned(made.uts, Kind::Uts),
                pid: init.and_then(|init| init.namespaces.pid),
            },
        })
    }

    async fn stop(&self, place: &Place, grace: Duration) -> Result<(), Error> {
        let files = Files(&place.dir);
        let Some(mut made) = files.read()? else { return Ok(()) };
        if made.init {
            self.pause.stop(place, grace).await?;
        }
        let exit = *made.exited.get_or_insert_with(|| Exit { code: 0, at: names::now() });
        files.unpin()?;
        files.write(&made)?;
        self.ends.tell(&place.id, exit);
        Ok(())
    }

    async fn wait(&self, place: &Place) -> Result<Exit, Error> {
        // Before it is looked at, so that a Stop cannot come between.
        let mut end = self.ends.of(&place.id);
        let made = Files(&place.dir).read()?.ok_or_else(|| Error::NoSandbox(place.id.clone()))?;
        if let Some(exit) = made.exited {
            return Ok(exit);
        }
        if made.init {
            return self.pause.wait(place).await;
        }
        let told = end.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        Ok(told.unwrap_or_else(|| Exit { code: 0, at: names::now() }))
    }

    async fn status(&self, place: &Place) -> Result<Status, Error> {
        match Files(&place.dir).read()? {
            None => Ok(Status::Gone),
            Some(made) => self.state(place, made).await,
        }
    }

    /// The init goes first: its record says that there may be one.
    async fn shutdown(&self, place: &Place) -> Result<(), Error> {
        let files = Files(&place.dir);
        // A record that cannot be read says nothing, and must not keep the rest from going.
        let made = files.read().unwrap_or_default();
        if made.as_ref().is_none_or(|made| made.init) {
            self.pause.shutdown(place).await?;
        } else {
            self.shims.end(place).await?;
        }
        files.unpin()?;
        files.remove()?;
        let exit = made.and_then(|made| made.exited);
        self.ends.tell(&place.id, exit.unwrap_or_else(|| Exit { code: UNSEEN, at: names::now() }));
        Ok(())
    }

    async fn metrics(&self, place: &Place) -> Result<shim_api::Stats, Error> {
        match Files(&place.dir).read()? {
            None => Err(Error::NoSandbox(place.id.clone())),
            Some(made) if made.init => self.pause.metrics(place).await,
            Some(_) => Err(Error::Unsupported { call: "metrics of a sandbox without a process" }),
        }
    }

    async fn supervise(&self, place: &Place) -> Result<(), Error> {
        self.shims.supervise(place).await
    }

    fn runs_program(&self, pid: PidNamespace) -> bool {
        pid == PidNamespace::Pod
    }
}

fn owner(user: &oci::UserNamespace) -> Option<sys::namespaces::Owner<'_>> {
    let path = user.path.as_deref()?;
    Some(sys::namespaces::Owner { path, root: user.root() })
}

/// What was made, or was about to be.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    ipc: bool,
    uts: bool,
    /// The init of a shared pid namespace.
    init: bool,
    /// Not ours: it was given.
    network: Option<PathBuf>,
    started: Option<Nanos>,
    exited: Option<Exit>,
}

/// The files of a sandbox, in its pod's folder. They are of this boot, as the namespaces are.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn folder(&self) -> PathBuf {
        self.0.join("ns")
    }

    fn pin(&self, kind: Kind) -> PathBuf {
        self.folder().join(kind.name())
    }

    fn record(&self) -> PathBuf {
        self.0.join("namespaces.json")
    }

    /// What was made; none for a sandbox that never was, or is gone.
    fn read(&self) -> Result<Option<Made>, Error> {
        match fs::read(self.record()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => {
                let made = serde_json::from_slice(&read.on("reading", self.record())?);
                made.map(Some).on("reading", self.record())
            }
        }
    }

    fn write(&self, made: &Made) -> Result<(), Error> {
        let half = self.0.join("namespaces.half");
        let text = serde_json::to_vec(made).on("writing", &half)?;
        fs::write(&half, text).on("writing", &half)?;
        fs::rename(&half, self.record()).on("writing", self.record())
    }

    fn unpin(&self) -> Result<(), Error> {
        [Kind::Ipc, Kind::Uts].into_iter().try_for_each(|kind| {
            let path = self.pin(kind);
            pin::unmake(&path).on("unpinning the namespace", path)
        })
    }

    fn remove(&self) -> Result<(), Error> {
        let gone = |removed: std::io::Result<()>| match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(fs::remove_dir(self.folder())).on("removing", self.folder())?;
        gone(fs::remove_file(self.record())).on("removing", self.record())
    }
}
