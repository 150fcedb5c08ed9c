//! The built-in bridge network, for people without a CNI: addresses, veth pairs, routes, masquerade
//! and host ports. It knows nothing of CNI, and of a pod only its id.
//!
//! Every pod gets a pair of interfaces: `eth0` in its own network namespace, and on the host a port
//! of the bridge, named after the pod. Its address is one of the bridge's subnets; the bridge has
//! the first one and is the gateway. Traffic that leaves the subnets takes the host's address.
//!
//! What it cannot do: a table of somebody else that drops forwarded packets (Docker sets the policy
//! of its FORWARD chain so) drops those of pods as well, since in netfilter a drop is final. Such a
//! host has to accept what enters and leaves by the bridge in that table; [`Bridge::obstacles`] finds
//! them. And `nft flush ruleset`
//! takes our rules with it; the next [`Bridge::attach`] or [`Bridge::make`] puts them back.

mod claims;
mod config;
mod conntrack;
mod error;
mod host;
mod lease;
mod link;
mod netlink;
mod nft;
mod obstacle;
mod subnet;
mod sysctl;
mod turns;
mod wire;

use std::{
    collections::HashSet,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use names::PodId;
use tokio::{sync::RwLock, task::spawn_blocking, time::timeout};

pub use claims::{Claim, parse as parse_claim};
pub use config::Config;
pub use error::Error;
pub use lease::{HostPort, Lease, Protocol};
pub use obstacle::Obstacle;
pub use subnet::{Address, BadMac, BadSubnet, Mac, Subnet};

use claims::Claims;
use error::Doing;
use nft::Table;
use turns::{Turn, Turns};

/// Something that [`Bridge::sweep`] found without an owner, and freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freed {
    /// All that a pod had here.
    Pod(PodId),
    /// An interface that no lease speaks of.
    Link(String),
}

/// The network of one bridge. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    config: Config,
    claims: Mutex<Claims>,
    turns: Turns,
    /// The bridge's index, once it and the rules were made by us. Rules are replaced as a whole
    /// under the write lock, and a pod's elements in them put and erased under the read lock.
    made: RwLock<Option<u32>>,
    table: Mutex<Table>,
    /// That the kernel has what we need, which does not change.
    able: OnceLock<()>,
}

impl Bridge {
    /// Checks the configuration and reads the leases. Makes nothing on the host yet.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration that cannot work; `Internal` if the leases cannot be
    /// listed.
    pub fn new(config: Config) -> Result<Bridge, Error> {
        config.check()?;
        let claims = Mutex::new(Claims::open(&config.root)?);
        let table = Mutex::new(Table::of(&config.bridge, config.deadline));
        let (turns, made, able) = (Turns::default(), RwLock::new(None), OnceLock::new());
        Ok(Bridge(Arc::new(Inner { config, claims, turns, made, table, able })))
    }

    /// Whether it can work on this host: the error is why not, and what to do about it. Quick.
    ///
    /// # Errors
    /// `FailedPrecondition` if `nft` or a part of the kernel is missing, `PermissionDenied` if we
    /// may not change the network.
    pub fn status(&self) -> Result<(), Error> {
        nft::program()?;
        if self.0.able.get().is_none() {
            host::check_kernel(&self.0.config, &mut self.0.table())?;
            self.0.able.get_or_init(|| ());
        }
        Ok(())
    }

    /// What on this host keeps pods from reaching beyond the bridge although all is well with it, and
    /// what to do about each. For people who ask why; it walks the rules of others, so not for often.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn obstacles(&self) -> Result<Vec<Obstacle>, Error> {
        let bridge = &self.0.config.bridge;
        self.0
            .table()
            .talk(|socket| obstacle::find(socket, bridge))
            .doing(|| "reading the rules of others".to_owned())
    }

    /// Reserves addresses and host ports for `pod`. The same pod gets its own addresses again; ports
    /// that it held and that are not among `ports` are given back.
    ///
    /// # Errors
    /// `InvalidArgument` for a port that can never be; `AlreadyExists` for one that another pod
    /// holds, naming it; `ResourceExhausted` if there is no free address. Nothing new is then held.
    pub async fn reserve(&self, pod: &PodId, ports: Vec<HostPort>) -> Result<Lease, Error> {
        let config = &self.0.config;
        ports.iter().try_for_each(|port| port.check(config.has(true), config.has(false)))?;
        check_twice(&ports)?;
        self.in_time("reserving an address", async {
            let turn = self.0.turns.take(pod).await;
            let pod = pod.clone();
            self.blocking(turn, move |inner| inner.reserve(&pod, ports)).await
        })
        .await
    }

    /// Makes the bridge, the rules and the switches of the host, if they are not as they should be.
    /// [`Bridge::attach`] does this when it is needed; call it at start-up if there are pods, so that
    /// their host ports work although somebody flushed the rules meanwhile.
    ///
    /// # Errors
    /// `FailedPrecondition` if the host is in the way, saying how; else what went wrong.
    pub async fn make(&self) -> Result<(), Error> {
        self.in_time("making the bridge", async { self.make_host().await.map(|_| ()) }).await
    }

    /// Removes the bridge and the rules, and leaves pods' leases and interfaces. Idempotent. Pods
    /// that are still attached lose their network.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn unmake(&self) -> Result<(), Error> {
        self.in_time("removing the bridge", async {
            let mut made = self.0.made.write().await;
            *made = None;
            let inner = Arc::clone(&self.0);
            joined(spawn_blocking(move || host::unmake(&inner.config, &mut inner.table())).await)
        })
        .await
    }

    /// Ties the network namespace at `netns` to the bridge as `lease` says, and opens the host ports.
    /// Interfaces, addresses, routes and host ports are usable when it returns.
    ///
    /// # Errors
    /// `NotFound` if there is no namespace; `FailedPrecondition` if the lease is not (or no longer)
    /// the pod's, or the host is in the way. What it made is gone again then, except after
    /// `DeadlineExceeded`, when [`Bridge::detach`] is needed (it waits for what was left behind).
    pub async fn attach(&self, pod: &PodId, netns: &Path, lease: &Lease) -> Result<(), Error> {
        self.in_time("attaching the pod to the bridge", async {
            let turn = self.0.turns.take(pod).await;
            for _ in 0..2 {
                let bridge = self.make_host_once().await?;
                let (pod, netns, lease) = (pod.clone(), netns.to_owned(), lease.clone());
                let work = move |inner: &Inner| inner.attach(&pod, &netns, &lease, bridge);
                if self.blocking(Arc::clone(&turn), work).await? {
                    return Ok(());
                }
                self.make_host().await?;
            }
            Err(Error::Vanished(self.0.config.bridge.clone()))
        })
        .await
    }

    /// Undoes [`Bridge::attach`] and [`Bridge::reserve`]. Idempotent, content with what was never
    /// made or only half, and in no need of the namespace.
    ///
    /// # Errors
    /// What the kernel said. What could not be undone is still held, for the next try.
    pub async fn detach(&self, pod: &PodId, lease: &Lease) -> Result<(), Error> {
        self.in_time("detaching the pod from the bridge", async {
            let turn = self.0.turns.take(pod).await;
            let (pod, lease) = (pod.clone(), lease.clone());
            self.blocking(turn, move |inner| inner.release(&pod, Some(&lease))).await
        })
        .await
    }

    /// Frees what pods hold that are not among `live`, and removes ports of the bridge that belong to
    /// no live pod. `live` must name every pod that has a record, also those being made.
    ///
    /// # Errors
    /// The first that occurs; the rest is still tried.
    pub async fn sweep(&self, live: &[PodId]) -> Result<Vec<Freed>, Error> {
        let live: HashSet<PodId> = live.iter().cloned().collect();
        let mut freed = Vec::new();
        let mut failed = None;
        let pods = self.0.claims().pods();
        for pod in pods.into_iter().filter(|pod| !live.contains(pod)) {
            match self.release(&pod).await {
                Ok(()) => freed.push(Freed::Pod(pod)),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let links = self.in_time("removing interfaces without a pod", async {
            let inner = Arc::clone(&self.0);
            joined(spawn_blocking(move || inner.sweep_links(&live)).await)
        });
        freed.extend(links.await?.into_iter().map(Freed::Link));
        failed.map_or(Ok(freed), Err)
    }

    /// As [`Bridge::detach`], by what is held alone.
    pub async fn release(&self, pod: &PodId) -> Result<(), Error> {
        self.in_time("freeing what a pod left", async {
            let turn = self.0.turns.take(pod).await;
            let pod = pod.clone();
            self.blocking(turn, move |inner| inner.release(&pod, None)).await
        })
        .await
    }

    /// The index of the bridge, making it if this process did not yet.
    async fn make_host_once(&self) -> Result<u32, Error> {
        let made = *self.0.made.read().await;
        match made {
            Some(bridge) => Ok(bridge),
            None => self.make_host().await,
        }
    }

    async fn make_host(&self) -> Result<u32, Error> {
        let mut made = self.0.made.write().await;
        let (inner, before) = (Arc::clone(&self.0), *made);
        let done = spawn_blocking(move || inner.make_bridge(before));
        let (bridge, whole) = joined(done.await)?;
        if !whole {
            *made = None;
            nft::load(&self.0.config.bridge, &self.0.rules()).await?;
            *made = Some(bridge);
        }
        Ok(bridge)
    }

    async fn in_time<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.0.config.deadline;
        timeout(limit, work).await.unwrap_or(Err(Error::TookTooLong { doing, limit }))
    }

    /// Runs work for a pod where it may block. The turn ends with the work, whoever still waits.
    async fn blocking<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        let work = move || {
            let done = work(&inner);
            drop(turn);
            done
        };
        joined(spawn_blocking(work).await)
    }
}

impl Inner {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Claims are changed only after the disk was, so they are right even if somebody panicked.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, pod: &PodId, ports: Vec<HostPort>) -> Result<Lease, Error> {
        let mut claims = self.claims();
        let before = claims.addresses_of(pod);
        let reserved = self.reserve_in(&mut claims, pod, ports);
        if reserved.is_err() && before.is_empty() {
            // What remains if this fails too is freed by the pod's own undo, or by the next sweep.
            let _ = claims.release_all_ports(pod);
            let _ = claims.release_addresses(pod);
        }
        reserved
    }

    fn reserve_in(
        &self,
        claims: &mut Claims,
        pod: &PodId,
        ports: Vec<HostPort>,
    ) -> Result<Lease, Error> {
        let subnets = &self.config.subnets;
        let ips = subnets
            .iter()
            .map(|subnet| claims.claim_address(pod, subnet))
            .collect::<Result<Vec<_>, _>>()?;
        claims.claim_ports(pod, &ports)?;
        Ok(self.lease(pod, &ips, ports))
    }

    fn lease(&self, pod: &PodId, ips: &[IpAddr], ports: Vec<HostPort>) -> Lease {
        let subnets = &self.config.subnets;
        Lease {
            addresses: subnets.iter().zip(ips).map(|(subnet, ip)| subnet.address(*ip)).collect(),
            gateways: subnets.iter().map(|subnet| subnet.gateway().ip).collect(),
            host_if: lease::host_if(pod),
            mac: Mac::of(ips[0]),
            ports,
        }
    }

    /// The bridge, and whether the rules are there as well: only if `before` says that we made them.
    fn make_bridge(&self, before: Option<u32>) -> Result<(u32, bool), Error> {
        match before {
            Some(bridge) if self.is_made(bridge)? => Ok((bridge, true)),
            _ => Ok((host::make(&self.config)?, false)),
        }
    }

    fn is_made(&self, bridge: u32) -> Result<bool, Error> {
        Ok(host::is_bridge(&self.config, bridge)? && host::has_table(&mut self.table())?)
    }

    fn rules(&self) -> String {
        let claims = self.claims();
        let held =
            claims.pods().into_iter().map(|pod| (claims.addresses_of(&pod), claims.ports_of(&pod)));
        let pods: Vec<_> = held.filter(|(_, ports)| !ports.is_empty()).collect();
        nft::rules(&self.config.bridge, &self.config.subnets, &pods)
    }

    /// False if the bridge or the rules are not there (any more).
    fn attach(&self, pod: &PodId, netns: &Path, lease: &Lease, bridge: u32) -> Result<bool, Error> {
        self.check_held(pod, lease)?;
        if !self.is_made(bridge)? {
            return Ok(false);
        }
        wire::make(&self.config, pod, netns, lease, bridge)?;
        if lease.ports.is_empty() {
            return Ok(true);
        }
        let _no_replacing = self.made.blocking_read();
        let opened = wire::open_ports(&self.config, &mut self.table(), lease);
        if opened.is_err() {
            // The first failure is what the caller is told.
            let _ = wire::close_ports(&mut self.table(), &wire::ips(lease), &lease.ports);
            let _ = wire::unmake(&self.config, pod);
        }
        opened.map(|()| true)
    }

    fn check_held(&self, pod: &PodId, lease: &Lease) -> Result<(), Error> {
        let claims = self.claims();
        match wire::ips(lease).into_iter().find(|ip| !claims.holds(pod, *ip)) {
            Some(address) => Err(Error::NotReserved { pod: pod.clone(), address }),
            None => Ok(()),
        }
    }

    /// Ports first and addresses last, so that nothing leads to an address that is free.
    fn release(&self, pod: &PodId, lease: Option<&Lease>) -> Result<(), Error> {
        self.close_ports(pod, lease)?;
        wire::unmake(&self.config, pod)?;
        self.claims().release_addresses(pod)
    }

    fn close_ports(&self, pod: &PodId, lease: Option<&Lease>) -> Result<(), Error> {
        let (ips, ports) = self.claims().still_of(pod, lease);
        if ports.is_empty() || ips.is_empty() {
            return self.claims().release_all_ports(pod);
        }
        let _no_replacing = self.made.blocking_read();
        wire::close_ports(&mut self.table(), &ips, &ports)?;
        self.claims().release_all_ports(pod)
    }

    fn sweep_links(&self, live: &HashSet<PodId>) -> Result<Vec<String>, Error> {
        let mut socket = host::route(self.config.deadline)?;
        let links = link::all(&mut socket).doing(|| "listing interfaces".to_owned())?;
        let bridge = links.iter().find(|link| link.name == self.config.bridge);
        let Some(bridge) = bridge.map(|link| link.index) else { return Ok(Vec::new()) };
        let known: HashSet<String> = live.iter().map(lease::host_if).collect();
        let mut freed = Vec::new();
        for link in links.into_iter().filter(|link| link.master == bridge && link.kind == "veth") {
            if lease::is_host_if(&link.name) && !known.contains(&link.name) {
                link::unmake(host::route(self.config.deadline)?, &link.name)
                    .doing(|| format!("removing {}", link.name))?;
                freed.push(link.name);
            }
        }
        Ok(freed)
    }
}

/// Two ports of one pod cannot be at one place either.
fn check_twice(ports: &[HostPort]) -> Result<(), Error> {
    for (i, port) in ports.iter().enumerate() {
        if ports[..i].iter().any(|other| other.door().clashes(&port.door())) {
            return Err(Error::BadPort { port: *port, why: "the pod asks for it twice" });
        }
    }
    Ok(())
}

fn joined<T>(done: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    done.expect("work on the network neither panics nor is aborted")
}
