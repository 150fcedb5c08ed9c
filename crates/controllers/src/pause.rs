//! The `pause` controller: a process that does nothing holds the pod's namespaces, run in the pod's
//! own shim, which then runs the containers too. iSulad calls this its shim controller.

use std::{fs, path::PathBuf, time::Duration};

use async_trait::async_trait;
use names::Class;
use oci::{Namespace, PausePlan};
use shim_api::CreateTask;

use crate::{
    Controller, Error, Exit, Namespaces, PidNamespace, Place, Sandbox, Seccomp, Shims, Started,
    Status, error::Context,
};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How long a killed pause may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// Sandboxes held by a pause container.
pub struct Pause {
    shims: Shims,
    node: oci::Node,
    layout: sys::cgroup::Layout,
    /// How long a call to a shim may take.
    within: Duration,
}

impl Pause {
    pub fn new(
        shims: Shims,
        node: oci::Node,
        layout: sys::cgroup::Layout,
        within: Duration,
    ) -> Self {
        Self { shims, node, layout, within }
    }

    /// Makes the pause container in these namespaces, and the pod's shim for it.
    pub(crate) async fn create_in(
        &self,
        sandbox: &Sandbox,
        namespaces: oci::Namespaces,
    ) -> Result<(), Error> {
        let bundle = self.bundle(sandbox, namespaces)?;
        let shim = self.shims.spawn(&sandbox.place).await?;
        let task = CreateTask {
            id: sandbox.place.id.to_string(),
            bundle,
            runtime: sandbox.runtime.clone(),
            ..CreateTask::default()
        };
        match shim.create(task.clone(), self.within).await {
            // It did not start. If it will not again, that says why.
            Err(shim_api::Error::Unreachable { .. }) => {
                self.shims.supervise(&sandbox.place).await?;
                shim.create(task, self.within).await?;
            }
            created => drop(created?),
        }
        Ok(())
    }

    /// Writes the bundle of the pause container, and gives its folder.
    fn bundle(&self, sandbox: &Sandbox, namespaces: oci::Namespaces) -> Result<PathBuf, Error> {
        let bundle = sandbox.place.dir.join("pause");
        fs::create_dir_all(&bundle).on("making the folder", &bundle)?;
        let plan = self.plan(sandbox, namespaces)?;
        let config = oci::pause_config(&plan).map_err(Error::Config)?;
        let file = bundle.join("config.json");
        fs::write(&file, oci::to_json(&config.spec)).on("writing", &file)?;
        Ok(bundle)
    }

    fn plan(&self, sandbox: &Sandbox, namespaces: oci::Namespaces) -> Result<PausePlan, Error> {
        Ok(PausePlan {
            pod: oci::Pod {
                id: sandbox.place.id.clone(),
                name: sandbox.name.clone(),
                namespace: sandbox.namespace.clone(),
                uid: sandbox.uid.clone(),
                hostname: sandbox.hostname.clone(),
            },
            image: String::new(),
            annotations: names::Labels::new(),
            root: sandbox.program.rootfs.clone(),
            args: sandbox.program.args.clone(),
            env: sandbox.program.env.clone(),
            user: oci::User {
                uid: sandbox.user.unwrap_or(0),
                gid: sandbox.group.or(sandbox.user).unwrap_or(0),
                groups: sandbox.groups.clone(),
                home: None,
            },
            security: oci::Security {
                privileged: sandbox.privileged,
                seccomp: seccomp(&sandbox.seccomp)?,
                ..oci::Security::default()
            },
            namespaces,
            shm: sandbox.shm.clone(),
            sysctls: sandbox.sysctls.clone(),
            cgroup: cgroup(&sandbox.place),
            node: self.node.clone(),
        })
    }

    /// Frees what a shim that is gone has left of the pause container.
    fn sweep(&self, path: PathBuf) -> Result<(), Error> {
        let group = sys::cgroup::Cgroup::new(&self.layout, &path);
        let swept = group.and_then(|group| group.kill().and_then(|()| group.remove()));
        swept.on("removing the cgroup", path)
    }
}

#[async_trait]
impl Controller for Pause {
    async fn create(&self, sandbox: &Sandbox) -> Result<(), Error> {
        self.create_in(sandbox, namespaces(sandbox)).await
    }

    async fn start(&self, place: &Place) -> Result<Started, Error> {
        let shim = self.shims.of(&place.id);
        let pid = shim.start(place.id.as_str(), self.within).await?;
        let namespace = |kind: &str| Some(PathBuf::from(format!("/proc/{pid}/ns/{kind}")));
        Ok(Started {
            pid: Some(pid),
            at: names::now(),
            address: shim.address().clone(),
            namespaces: Namespaces {
                network: namespace("net"),
                ipc: namespace("ipc"),
                uts: namespace("uts"),
                pid: namespace("pid"),
            },
        })
    }

    async fn stop(&self, place: &Place, grace: Duration) -> Result<(), Error> {
        let (pod, shim) = (&place.id, self.shims.of(&place.id));
        let signal = if grace.is_zero() { SIGKILL } else { SIGTERM };
        if !tell(shim.kill(pod.as_str(), signal, false, self.within).await)? {
            return Ok(());
        }
        let patience = if grace.is_zero() { DEATH } else { grace };
        if let Ok(ended) = tokio::time::timeout(patience, shim.wait(pod.as_str())).await {
            return tell(ended.map(drop)).map(drop);
        }
        tell(shim.kill(pod.as_str(), SIGKILL, false, self.within).await)?;
        match tokio::time::timeout(DEATH, shim.wait(pod.as_str())).await {
            Ok(ended) => tell(ended.map(drop)).map(drop),
            Err(_) => Err(Error::WillNotDie(DEATH)),
        }
    }

    async fn wait(&self, place: &Place) -> Result<Exit, Error> {
        let exit = self.shims.of(&place.id).wait(place.id.as_str()).await?;
        Ok(Exit { code: exit.code, at: exit.at })
    }

    async fn status(&self, place: &Place) -> Result<Status, Error> {
        let shim = self.shims.of(&place.id);
        let state = match shim.state(place.id.as_str(), self.within).await {
            Err(error) if error.class() == Class::NotFound => return Ok(Status::Gone),
            Err(error) if error.class() == Class::Unavailable && !self.shims.is_kept(&place.id) => {
                return Ok(Status::Gone);
            }
            state => state?,
        };
        Ok(match (state.status, state.exit) {
            (_, Some(exit)) => Status::Stopped(Exit { code: exit.code, at: exit.at }),
            (shim_api::Status::Created, None) => Status::Created,
            (_, None) => Status::Running,
        })
    }

    async fn shutdown(&self, place: &Place) -> Result<(), Error> {
        let shim = self.shims.of(&place.id);
        match shim.delete(place.id.as_str(), self.within).await.map(drop) {
            // One that hangs is killed, and what it held with it.
            Err(error) if error.class() == Class::DeadlineExceeded => {
                tracing::warn!(pod = %place.id, %error, "its shim hangs");
            }
            deleted => drop(tell(deleted)?),
        }
        self.shims.end(place).await?;
        self.sweep(cgroup(place))
    }

    async fn metrics(&self, place: &Place) -> Result<shim_api::Stats, Error> {
        Ok(self.shims.of(&place.id).stats(place.id.as_str(), self.within).await?)
    }
}

/// Whether the shim was there to do it. One that is gone, or knows no such sandbox, is what an undo
/// wants.
fn tell(answer: Result<(), shim_api::Error>) -> Result<bool, Error> {
    match answer {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.class(),
                Class::NotFound | Class::Unavailable | Class::FailedPrecondition
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn cgroup(place: &Place) -> PathBuf {
    place.cgroup.join(place.id.as_str())
}

/// With namespaces of its own, but for the network's, and where it is to have the host's.
fn namespaces(sandbox: &Sandbox) -> oci::Namespaces {
    let own_unless = |host: bool| if host { Namespace::Host } else { Namespace::Own };
    oci::Namespaces {
        network: match &sandbox.netns {
            Some(path) => Namespace::Join(path.clone()),
            None => Namespace::Host,
        },
        ipc: own_unless(sandbox.host_ipc),
        // A pod on the host's network has the host's name.
        uts: own_unless(sandbox.netns.is_none()),
        pid: own_unless(sandbox.pid == PidNamespace::Host),
        user: sandbox.user_namespace.clone(),
    }
}

fn seccomp(filter: &Seccomp) -> Result<oci::Seccomp, Error> {
    Ok(match filter {
        Seccomp::Unconfined => oci::Seccomp::Unconfined,
        Seccomp::RuntimeDefault => oci::Seccomp::RuntimeDefault,
        Seccomp::Profile(bytes) => {
            let profile = oci::parse_seccomp(bytes).map_err(Error::BadProfile)?;
            oci::Seccomp::Profile(Box::new(profile))
        }
    })
}
