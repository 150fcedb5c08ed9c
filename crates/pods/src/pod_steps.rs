//! How each step of a pod is made, and unmade.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use controllers::{PidNamespace, Place, Program, Sandbox, Seccomp};
use sys::netns::Unpinned;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    Error,
    error::Context,
    files::{self, Files},
    host::World,
    intent::Intent,
    network,
    owner::Turn,
    owners,
    plan::{Profile, Sharing},
    pod::{Network, PodRecord, PodStep},
    step::{Owned, Phase, Step as _},
};

/// One pod, while somebody makes or unmakes it.
pub(crate) struct PodWork<'a> {
    pub(crate) world: &'a World,
    pub(crate) turn: Turn<'a, PodRecord>,
    /// The step `Netns`, begun beside others: it is the kernel's work, and needs nothing of theirs.
    namespaces: Option<JoinHandle<Result<(), Error>>>,
    intent: Intent,
    /// The step `Cgroup`, begun beside others: nobody needs it before there is a process.
    cgroup: Option<JoinHandle<Result<(), Error>>>,
}

#[async_trait::async_trait]
impl Owned for PodWork<'_> {
    type Step = PodStep;

    fn phase(&self) -> Phase<PodStep> {
        self.turn.phase
    }

    async fn save(&mut self, phase: Phase<PodStep>) -> Result<(), Error> {
        self.turn.phase = phase;
        self.turn.show();
        let (records, id) = (&self.world.pod_records, self.turn.id.as_str());
        self.intent.record(records, id, &self.turn, phase).await
    }

    async fn make(&mut self, step: PodStep) -> Result<(), Error> {
        match step {
            // The record itself is there: every step's intent is written to it first.
            PodStep::Record => Ok(()),
            PodStep::Files => {
                let spare =
                    has_plain_network(&self.turn).then(|| self.world.spare.take()).flatten();
                self.namespaces = Some(spawn_blocking(namespaces(&self.turn, spare)));
                self.begin_cgroup();
                Files(&self.turn).make()
            }
            PodStep::Image => self.make_image().await,
            // It was begun with the files, and whoever first needs it waits for it.
            PodStep::Cgroup => Ok(()),
            PodStep::Netns => self.make_namespaces().await,
            PodStep::Network => self.make_network().await,
            PodStep::Create => self.create().await,
            PodStep::Start => self.start().await,
        }
    }

    async fn unmake(&mut self, step: PodStep) -> Result<(), Error> {
        self.unmake_begun().await?;
        match step {
            PodStep::Start => self.stop().await,
            PodStep::Create => self.shut_down().await,
            PodStep::Network => self.unmake_network().await,
            PodStep::Netns => {
                self.unmake_namespaces()?;
                self.rest_cgroup().await
            }
            PodStep::Cgroup => self.unmake_cgroup().await,
            PodStep::Image => self.unmake_image().await,
            PodStep::Files => Files(&self.turn).unmake(),
            PodStep::Record => Ok(()),
        }
    }

    async fn forget(&mut self) -> Result<(), Error> {
        self.world.pod_records.erase(self.turn.id.as_str()).await?;
        self.turn.erased();
        Ok(())
    }
}

/// Makes the namespaces that are pinned for a pod from the first. One that is made already has the
/// sysctls that all pods have.
fn namespaces(
    pod: &PodRecord,
    spare: Option<Unpinned>,
) -> impl FnOnce() -> Result<(), Error> + Send + 'static {
    let (userns, netns) = (pod.userns.clone(), pod.netns.clone());
    let maps = pod.plan.namespaces.user.as_ref().map(owners::maps);
    let defaults = match &spare {
        Some(_) => BTreeMap::new(),
        None => oci::default_sysctls(userns.is_some()),
    };
    let sysctls = network::sysctls(defaults, &pod.plan.sysctls);
    move || {
        if let (Some(path), Some(maps)) = (&userns, &maps) {
            sys::userns::make(path, maps).on("making the user namespace", path)?;
        }
        let Some(path) = &netns else { return Ok(()) };
        let sysctls: Vec<_> = sysctls.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let made = match (&userns, spare) {
            (Some(user), _) => sys::netns::make_within(user, path, &sysctls),
            (None, Some(spare)) => spare.pin(path, &sysctls),
            (None, None) => sys::netns::make(path, &sysctls),
        };
        made.on("making the network namespace", path)
    }
}

/// Whether its network namespace is as those made ahead.
pub(crate) fn has_plain_network(pod: &PodRecord) -> bool {
    pod.netns.is_some() && pod.userns.is_none()
}

/// What came of a step that was begun beside others.
async fn ended(begun: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    begun.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
}

impl<'a> PodWork<'a> {
    pub(crate) fn new(world: &'a World, turn: Turn<'a, PodRecord>) -> Self {
        Self { world, turn, namespaces: None, cgroup: None, intent: Intent::default() }
    }
}

impl PodWork<'_> {
    /// Records what the record holds, in the phase that it has.
    async fn record(&self) -> Result<(), Error> {
        Ok(self.world.pod_records.put(self.turn.id.as_str(), &self.turn).await?)
    }

    async fn make_image(&mut self) -> Result<(), Error> {
        if !self.runs_program() {
            return Ok(());
        }
        let target = self.program_root();
        let Some(image) = &self.world.host.pause_image else {
            return self.bring_near(&target);
        };
        let id = self.world.ensure_image(image).await?;
        std::fs::create_dir_all(&target).on("making the folder", &target)?;
        let owner = crate::lease(&self.turn.id);
        Ok(self.world.host.images.mount(&id, &owner, &target, images::Access::ReadOnly).await?)
    }

    /// Where the root filesystem of the sandbox's program is mounted, if it is.
    fn program_root(&self) -> std::path::PathBuf {
        self.turn.state_dir.join("pause").join("rootfs")
    }

    /// Whether the built-in pause cannot be run where it is: the root of a user namespace, who is nobody
    /// on the host, cannot go there, and from some filesystems nothing can be run.
    fn is_out_of_reach(&self) -> Result<bool, Error> {
        if self.turn.userns.is_some() || !self.runs_program() {
            return Ok(self.turn.userns.is_some());
        }
        let rootfs = &self.world.host.pause_rootfs;
        sys::mount::forbids_programs(rootfs).on("looking at the mount of", rootfs)
    }

    /// Mounts the built-in pause where it can be run, if it cannot be where it is.
    fn bring_near(&self, target: &std::path::Path) -> Result<(), Error> {
        if !self.is_out_of_reach()? {
            return Ok(());
        }
        std::fs::create_dir_all(target).on("making the folder", target)?;
        let mount = || {
            let tree = sys::mount::bind(sys::mount::handle(&self.world.host.pause_rootfs)?, false)?;
            // Where it was allowed before, nothing changes; a kernel that has user namespaces for pods can do it.
            tree.allow_programs()?;
            tree.attach(target)
        };
        mount().on("mounting the pause program at", target)
    }

    /// Whether the sandbox needs a program, and so its image.
    fn runs_program(&self) -> bool {
        let controller = self.world.controller(&self.turn);
        controller.is_ok_and(|controller| controller.runs_program(pid_namespace(&self.turn)))
    }

    async fn unmake_image(&mut self) -> Result<(), Error> {
        let target = self.program_root();
        // The image store knows of images alone.
        sys::mount::unmount(&target).on("unmounting", &target)?;
        let owner = crate::lease(&self.turn.id);
        Ok(self.world.host.images.unmount(&owner, &target).await?)
    }

    fn begin_cgroup(&mut self) {
        let driver = Arc::clone(self.world.makes_cgroup_of(&self.turn));
        let group = self.world.group(&self.turn);
        self.cgroup = Some(tokio::spawn(async move { driver.make(&group).await }));
    }

    /// Waits for the cgroup, which was begun beside other steps.
    async fn await_cgroup(&mut self) -> Result<(), Error> {
        let Some(begun) = self.cgroup.take() else { return Ok(()) };
        ended(begun).await.map_err(|cause| cause.at(PodStep::Cgroup.name()))?;
        // All cgroups of the pod itself are made, and its first container is on its way.
        let (_, handler) = self.world.handler(&self.turn.handler)?;
        self.world.expect_a_move(&handler.runtime);
        Ok(())
    }

    async fn unmake_cgroup(&mut self) -> Result<(), Error> {
        self.world.makes_cgroup_of(&self.turn).unmake(&self.world.group(&self.turn)).await
    }

    /// A stopped pod has no process, not even one that holds its scope.
    async fn rest_cgroup(&mut self) -> Result<(), Error> {
        self.world.makes_cgroup_of(&self.turn).rest(&self.world.group(&self.turn)).await
    }

    /// Unmakes what was begun beside other steps, whatever came of it: none of the steps that follow it
    /// has been made.
    async fn unmake_begun(&mut self) -> Result<(), Error> {
        if let Some(begun) = self.namespaces.take() {
            let _ = begun.await;
            self.unmake_namespaces()?;
        }
        if let Some(begun) = self.cgroup.take() {
            let _ = begun.await;
            self.unmake_cgroup().await?;
        }
        Ok(())
    }

    async fn make_namespaces(&mut self) -> Result<(), Error> {
        let Some(begun) = self.namespaces.take() else { return Ok(()) };
        ended(begun).await
    }

    fn unmake_namespaces(&mut self) -> Result<(), Error> {
        if let Some(path) = &self.turn.netns {
            sys::netns::unmake(path).on("removing the network namespace", path)?;
        }
        let Some(path) = &self.turn.userns else { return Ok(()) };
        sys::pin::unmake(path).on("removing the user namespace", path)
    }

    /// Finds out what is to be asked of the network, before anything is made, so that the record says it
    /// from the first. Addresses that are reserved now belong to no record until then.
    pub(crate) async fn plan_network(&mut self) -> Result<(), Error> {
        let Some(netns) = self.turn.netns.clone() else { return Ok(()) };
        self.turn.network = network::plan(&self.world.host, &self.turn, &netns).await?;
        Ok(())
    }

    /// Addresses that were reserved, and that no record could be written of.
    pub(crate) async fn let_go_of_addresses(&self) {
        let Some(bridge) = &self.world.host.bridge else { return };
        if let Err(error) = bridge.release(&self.turn.id).await {
            tracing::warn!(pod = %self.turn.id, %error, "its addresses are freed at the next start");
        }
    }

    /// What plugins answer is recorded as soon as they have. The bridge's lease says all before.
    async fn make_network(&mut self) -> Result<(), Error> {
        let Some(netns) = self.turn.netns.clone() else { return Ok(()) };
        match self.turn.network.clone() {
            Network::Host => {}
            Network::Cni(mut attachments) => {
                // Plugins keep addresses on the disk.
                self.intent.settle().await?;
                // Plugins may be told of it.
                self.await_cgroup().await?;
                for attachment in &mut attachments {
                    attachment.result = Some(self.world.host.cni.add(attachment).await?);
                    self.turn.addresses.extend(attachment.pod_ips()?);
                }
                self.turn.network = Network::Cni(attachments);
                self.record().await?;
            }
            Network::Bridge(lease) => {
                self.bridge()?.attach(&self.turn.id, &netns, &lease).await?;
                self.turn.addresses = lease.addresses.iter().map(|address| address.ip).collect();
            }
        }
        Files(&self.turn).write_hosts()
    }

    async fn unmake_network(&mut self) -> Result<(), Error> {
        match self.turn.network.clone() {
            Network::Host => {}
            // They stay in the record: what plugins keep on the disk may be there again after a reboot.
            Network::Cni(attachments) => {
                for attachment in attachments.iter().rev() {
                    self.world.host.cni.del(attachment).await?;
                }
            }
            // The addresses are no longer the pod's, but a stopped pod still tells which it had.
            Network::Bridge(lease) => {
                self.bridge()?.detach(&self.turn.id, &lease).await?;
                self.turn.network = Network::Host;
            }
        }
        // Addresses may have been reserved in the instant before their record was to be written.
        if let Some(bridge) = self.world.host.bridge.as_ref().filter(|_| self.turn.netns.is_some())
        {
            bridge.release(&self.turn.id).await?;
        }
        Ok(())
    }

    fn bridge(&self) -> Result<&::network::Bridge, Error> {
        self.world.host.bridge.as_ref().ok_or_else(|| {
            Error::precondition("the pod is on the built-in bridge, and `network.fallback` is off")
        })
    }

    async fn create(&mut self) -> Result<(), Error> {
        self.await_cgroup().await?;
        let controller = self.world.controller(&self.turn)?;
        Ok(controller.create(&self.sandbox()?).await?)
    }

    async fn start(&mut self) -> Result<(), Error> {
        let controller = self.world.controller(&self.turn)?;
        self.turn.started = Some(controller.start(&place(&self.turn)).await?);
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), Error> {
        let controller = self.world.controller(&self.turn)?;
        Ok(controller.stop(&place(&self.turn), Duration::ZERO).await?)
    }

    async fn shut_down(&mut self) -> Result<(), Error> {
        let controller = self.world.controller(&self.turn)?;
        Ok(controller.shutdown(&place(&self.turn)).await?)
    }

    fn sandbox(&self) -> Result<Sandbox, Error> {
        let pod: &PodRecord = &self.turn;
        let (plan, security) = (&pod.plan, &pod.plan.security);
        let (_, handler) = self.world.handler(&pod.handler)?;
        Ok(Sandbox {
            place: place(pod),
            name: plan.name.name.clone(),
            namespace: plan.name.namespace.clone(),
            uid: plan.name.uid.clone(),
            attempt: plan.name.attempt,
            labels: plan.labels.clone(),
            annotations: plan.annotations.clone(),
            hostname: files::hostname(pod),
            log_directory: plan.log_directory.clone(),
            netns: pod.netns.clone(),
            user_namespace: owners::joined(pod),
            host_ipc: plan.namespaces.ipc == Sharing::Node,
            pid: pid_namespace(pod),
            shm: Files(pod).own_shm(),
            // Those of the network were set when its namespace was made.
            sysctls: network::of_others(&plan.sysctls),
            user: security.run_as_user.map(id).transpose()?,
            group: security.run_as_group.map(id).transpose()?,
            groups: security
                .supplemental_groups
                .iter()
                .map(|it| id(*it))
                .collect::<Result<_, _>>()?,
            privileged: security.privileged,
            seccomp: seccomp(&security.seccomp)?,
            program: self.program()?,
            runtime: handler.runtime.clone(),
        })
    }

    fn program(&self) -> Result<Program, Error> {
        let host = &self.world.host;
        let image = host.pause_image.as_ref().filter(|_| self.runs_program());
        let Some(image) = image else {
            let rootfs = match self.is_out_of_reach()? {
                true => self.program_root(),
                false => host.pause_rootfs.clone(),
            };
            return Ok(Program { rootfs, args: vec!["/pause".into()], env: Vec::new() });
        };
        let image = host.images.find(image).ok_or_else(|| {
            Error::precondition(format!("the pause image {image} has been removed"))
        })?;
        let mut args = image.config.entrypoint.clone();
        args.extend(image.config.cmd.iter().cloned());
        let rootfs = self.program_root();
        Ok(Program { rootfs, args, env: image.config.env.clone() })
    }
}

pub(crate) fn place(pod: &PodRecord) -> Place {
    Place { id: pod.id.clone(), dir: pod.state_dir.clone(), cgroup: pod.cgroup.clone() }
}

fn pid_namespace(pod: &PodRecord) -> PidNamespace {
    match pod.plan.namespaces.pid {
        Sharing::Pod => PidNamespace::Pod,
        Sharing::Node => PidNamespace::Host,
        Sharing::Container | Sharing::Target(_) => PidNamespace::Container,
    }
}

fn id(id: i64) -> Result<u32, Error> {
    u32::try_from(id).map_err(|_| Error::rejected("security_context", format!("{id} is not an id")))
}

/// A local profile is read when it is needed, as the kubelet's users expect.
pub(crate) fn seccomp(profile: &Profile) -> Result<Seccomp, Error> {
    Ok(match profile {
        Profile::Unconfined => Seccomp::Unconfined,
        Profile::RuntimeDefault => Seccomp::RuntimeDefault,
        Profile::Localhost(path) => {
            let file = std::path::Path::new(path);
            if !file.is_file() {
                return Err(Error::rejected(
                    "security_context.seccomp",
                    format!("there is no profile file {path}"),
                ));
            }
            Seccomp::Profile(std::fs::read(file).on("reading the seccomp profile", file)?)
        }
    })
}
