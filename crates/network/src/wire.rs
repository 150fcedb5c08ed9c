//! One pod's wires: its pair of interfaces, its addresses and routes, its host ports. Blocks, since
//! the kernel does this work within the call.

use std::{
    fs::File,
    io::{self, ErrorKind},
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    thread,
    time::Duration,
};

use names::PodId;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sys::netns;

use crate::{
    config::Config,
    conntrack,
    error::{Doing, Error},
    host,
    lease::{HostPort, Lease, Protocol, host_if},
    link::{self, Pair},
    netlink::Socket,
    nft::Table,
    subnet::Mac,
    sysctl,
};

/// Ties the pod's namespace to the bridge of this index. What it made is gone again if it fails.
pub fn make(
    config: &Config,
    pod: &PodId,
    path: &Path,
    lease: &Lease,
    bridge: u32,
) -> Result<(), Error> {
    let no_netns = |source| Error::NoNetns { path: path.to_owned(), source };
    let netns = netns::open_netns(path).map_err(no_netns)?;
    let (inside, news) = visit(netns.as_fd(), || prepare(config)).map_err(no_netns).flatten()?;
    let outside = host::route(config.deadline)?;
    let host_if = host_if(pod);
    let (limit, name) = (config.deadline, config.bridge.as_str());
    let mut ends = Ends { limit, bridge: name, netns: netns.as_fd(), inside, news, outside };
    ends.make(path, &host_if, bridge, lease.mac, config.mtu)?;
    let raised = ends.raise(&host_if, lease);
    if raised.is_err() {
        // The first failure is what the caller is told; its undo takes this link away if we cannot.
        let _ = unmake(config, pod);
    }
    raised
}

/// Cuts the pod off. Content if it was never tied, or only half.
pub fn unmake(config: &Config, pod: &PodId) -> Result<(), Error> {
    let host_if = host_if(pod);
    link::unmake(host::route(config.deadline)?, &host_if).doing(|| format!("removing {host_if}"))
}

/// Opens the pod's host ports.
pub fn open_ports(config: &Config, table: &mut Table, lease: &Lease) -> Result<(), Error> {
    if lease.ports.iter().any(|port| port.door().takes(true)) && config.has(true) {
        // So that 127.0.0.1 leads to the pod too. Only on the bridge, where `guard` in the rules
        // keeps pods from doing the same in the other direction, and only once it is needed.
        sysctl::set(&format!("ipv4/conf/{}/route_localnet", config.bridge), "1")?;
    }
    table.put(&ips(lease), &lease.ports).doing(|| "opening host ports".to_owned())?;
    for port in udp(&lease.ports) {
        table
            .talk(|socket| conntrack::forget_port(socket, &port.door()))
            .doing(|| format!("forgetting old flows to host port {port}"))?;
    }
    Ok(())
}

/// Closes these host ports of a pod. Content with those that are not open.
pub fn close_ports(table: &mut Table, ips: &[IpAddr], ports: &[HostPort]) -> Result<(), Error> {
    let doing = || "closing host ports".to_owned();
    if table.exists().doing(doing)? {
        table.erase(ips, ports).doing(doing)?;
    }
    if udp(ports).next().is_some() {
        table
            .talk(|socket| conntrack::forget_addresses(socket, ips))
            .doing(|| "forgetting old flows to the pod".to_owned())?;
    }
    Ok(())
}

fn udp(ports: &[HostPort]) -> impl Iterator<Item = &HostPort> {
    ports.iter().filter(|port| port.protocol == Protocol::Udp)
}

/// The addresses of a lease without their prefix lengths.
pub fn ips(lease: &Lease) -> Vec<IpAddr> {
    lease.addresses.iter().map(|address| address.ip).collect()
}

/// Does it inside a namespace, on this thread: handing it to another one would take longer than all
/// the rest when the machine is busy.
fn visit<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    let done = work();
    match move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)) {
        Ok(()) => Ok(done),
        // The thread is not ours alone, and nobody may ever do anything on it in the pod's namespace.
        // It can only come to this if the kernel is out of memory for a few bytes.
        Err(_) => loop {
            thread::park();
        },
    }
}

/// Inside the pod's namespace: has interfaces to come trust no router that announces
/// itself (another pod could), and use their IPv6 addresses at once. Then opens sockets there, for
/// requests and for news of addresses.
fn prepare(config: &Config) -> Result<(Socket, Socket), Error> {
    sysctl::set_if_there("ipv6/conf/default/accept_ra", "0")?;
    sysctl::set_if_there("ipv6/conf/default/accept_dad", "0")?;
    let news = Socket::news_of(link::NEWS_OF_ADDRESSES, config.deadline)
        .doing(|| "opening a netlink socket".to_owned())?;
    Ok((host::route(config.deadline)?, news))
}

/// The two ends of a pod's link while it is being made.
struct Ends<'a> {
    limit: Duration,
    bridge: &'a str,
    netns: BorrowedFd<'a>,
    inside: Socket,
    /// Of IPv6 addresses inside.
    news: Socket,
    outside: Socket,
}

impl Ends<'_> {
    /// A link of this name is left from an attach that was cut short, so it gives way.
    fn make(
        &mut self,
        path: &Path,
        host_if: &str,
        bridge: u32,
        mac: Mac,
        mtu: Option<u32>,
    ) -> Result<(), Error> {
        let pair = Pair { host_if, bridge, mac, mtu, netns: self.netns };
        let doing = || format!("making {host_if}");
        match link::make_pair(&mut self.outside, &pair) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => return made.doing(doing),
        }
        link::unmake(host::route(self.limit)?, host_if).doing(|| format!("removing {host_if}"))?;
        match link::make_pair(&mut self.outside, &pair) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Err(Error::HasEth0 { path: path.to_owned() })
            }
            made => made.doing(doing),
        }
    }

    /// The host's end is raised once it cannot take a pod for a router.
    fn raise(&mut self, host_if: &str, lease: &Lease) -> Result<(), Error> {
        sysctl::set_if_there(&format!("ipv6/conf/{host_if}/accept_ra"), "0")?;
        sysctl::set_if_there(&format!("ipv6/conf/{host_if}/disable_ipv6"), "1")?;
        link::raise_port(&mut self.outside, host_if).doing(|| format!("raising {host_if}"))?;
        link::configure(&mut self.inside, &lease.addresses, &lease.gateways)
            .doing(|| "giving the pod its addresses and routes".to_owned())?;
        self.await_carrier(host_if).doing(|| format!("waiting for {host_if} to be connected"))?;
        link::await_addresses(&mut self.news, &lease.addresses)
            .doing(|| "waiting for the pod's addresses to be ready".to_owned())
    }

    fn await_carrier(&mut self, host_if: &str) -> io::Result<()> {
        let (netns, limit) = (self.netns, self.limit);
        let news = || Socket::news_of(link::NEWS_OF_LINKS, limit);
        link::await_carrier(&mut self.outside, host_if, news)?;
        // The bridge itself sends nothing while no port of it is connected: this may be the first.
        link::await_carrier(&mut self.outside, self.bridge, news)?;
        link::await_carrier(&mut self.inside, link::POD_IF, || {
            netns::within_fd(netns, news).flatten()
        })
    }
}
