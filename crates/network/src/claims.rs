//! Who holds which address and which host port: one symbolic link for each below the root, named
//! after what is held and pointing at the pod that holds it.
//!
//! A link is made in one step with its content, and never where one is already, so a claim is whole
//! or not there whatever is killed; it needs no sync, and `ls -l` shows the table. Links that say
//! something else are left alone, and what they name is never handed out.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use names::PodId;

use crate::{
    error::{At, Error},
    lease::{Door, HostPort, Lease},
    subnet::Subnet,
};

/// Something that one pod holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An address of the pod.
    Address(IpAddr),
    /// A port of the host.
    Port(HostPort),
}

/// Reads a claim from its link's name and target. `None` for what is no claim.
pub fn parse(name: &str, target: &str) -> Option<(Claim, PodId)> {
    match name.parse::<IpAddr>() {
        // Only the name that we would write can be removed by what it names.
        Ok(ip) if ip.to_string() == name => Some((Claim::Address(ip), target.parse().ok()?)),
        Ok(_) => None,
        Err(_) => parse_port(name, target),
    }
}

fn parse_port(name: &str, target: &str) -> Option<(Claim, PodId)> {
    let (pod, container_port) = target.split_once(':')?;
    let (protocol, door) = name.split_once(':')?;
    let (host_port, host_ip) = match door.split_once('@') {
        Some((port, ip)) => (port, Some(ip.parse().ok()?)),
        None => (door, None),
    };
    let port = HostPort {
        protocol: protocol.parse().ok()?,
        host_ip,
        host_port: host_port.parse().ok()?,
        container_port: container_port.parse().ok()?,
    };
    let plain = port_name(&port.door()) == name;
    if plain { Some((Claim::Port(port), pod.parse().ok()?)) } else { None }
}

/// Every claim, in memory and on disk.
pub(crate) struct Claims {
    root: PathBuf,
    addresses: BTreeMap<IpAddr, PodId>,
    ports: BTreeMap<Door, (u16, PodId)>,
    /// Where the next search in a subnet begins, so that an address just given back is not the next
    /// one taken; and where the first one does.
    next: BTreeMap<Subnet, u32>,
    first: u32,
}

impl Claims {
    /// Reads the claims below `root`, which need not exist yet.
    pub fn open(root: &Path) -> Result<Claims, Error> {
        let mut claims = Claims {
            root: root.to_owned(),
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            next: BTreeMap::new(),
            first: 0,
        };
        let entries = match fs::read_dir(root) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(claims),
            entries => entries.at("listing", root)?,
        };
        for entry in entries {
            let entry = entry.at("listing", root)?;
            if let Some((claim, pod)) = read(&entry) {
                claims.note(claim, pod);
            }
        }
        claims.first = anywhere();
        Ok(claims)
    }

    /// The address of `subnet` that `pod` holds, or else the next free one.
    pub fn claim_address(&mut self, pod: &PodId, subnet: &Subnet) -> Result<IpAddr, Error> {
        let held = self.addresses.iter().find(|(ip, owner)| *owner == pod && subnet.contains(**ip));
        if let Some((ip, _)) = held {
            return Ok(*ip);
        }
        let size = subnet.size();
        let next = self.next.get(subnet).copied().unwrap_or(self.first) % size;
        for index in (next..size).chain(0..next) {
            let ip = subnet.nth(index);
            if !self.addresses.contains_key(&ip) && self.link(&ip.to_string(), pod.as_str())? {
                self.next.insert(*subnet, index + 1);
                self.addresses.insert(ip, pod.clone());
                return Ok(ip);
            }
        }
        Err(Error::Exhausted { subnet: *subnet })
    }

    /// Claims these host ports for `pod`, and gives back those of its ports that are not among them.
    pub fn claim_ports(&mut self, pod: &PodId, ports: &[HostPort]) -> Result<(), Error> {
        for port in ports {
            self.check_free(pod, port)?;
        }
        self.release_ports(pod, |door| ports.iter().all(|port| port.door() != *door))?;
        for port in ports {
            self.claim_port(pod, port)?;
        }
        Ok(())
    }

    /// Whether `pod` holds `ip`.
    pub fn holds(&self, pod: &PodId, ip: IpAddr) -> bool {
        self.addresses.get(&ip) == Some(pod)
    }

    /// Gives back every port of `pod`.
    pub fn release_all_ports(&mut self, pod: &PodId) -> Result<(), Error> {
        self.release_ports(pod, |_| true)
    }

    /// Gives back every address of `pod`.
    pub fn release_addresses(&mut self, pod: &PodId) -> Result<(), Error> {
        for ip in self.addresses_of(pod) {
            self.unlink(&ip.to_string())?;
            self.addresses.remove(&ip);
        }
        Ok(())
    }

    /// The addresses that `pod` holds.
    pub fn addresses_of(&self, pod: &PodId) -> Vec<IpAddr> {
        self.addresses.iter().filter(|(_, owner)| *owner == pod).map(|(ip, _)| *ip).collect()
    }

    /// The host ports that `pod` holds.
    pub fn ports_of(&self, pod: &PodId) -> Vec<HostPort> {
        let own = self.ports.iter().filter(|(_, (_, owner))| owner == pod);
        own.map(|(door, (port, _))| host_port(door, *port)).collect()
    }

    /// What `pod` holds, and what its lease says that it held and nobody else holds by now.
    pub fn still_of(&self, pod: &PodId, lease: Option<&Lease>) -> (Vec<IpAddr>, Vec<HostPort>) {
        let (mut ips, mut ports) = (self.addresses_of(pod), self.ports_of(pod));
        if let Some(lease) = lease {
            let leased = lease.addresses.iter().map(|address| address.ip);
            ips.extend(leased.filter(|ip| !self.addresses.contains_key(ip)));
            let leased = lease.ports.iter().copied();
            ports.extend(leased.filter(|port| !self.ports.contains_key(&port.door())));
        }
        (ips, ports)
    }

    /// Every pod that holds something, in a stable order.
    pub fn pods(&self) -> Vec<PodId> {
        let owners = self.ports.values().map(|(_, owner)| owner);
        let mut pods: Vec<PodId> = self.addresses.values().chain(owners).cloned().collect();
        pods.sort();
        pods.dedup();
        pods
    }

    fn note(&mut self, claim: Claim, pod: PodId) {
        match claim {
            Claim::Address(ip) => {
                self.addresses.insert(ip, pod);
            }
            Claim::Port(port) => {
                self.ports.insert(port.door(), (port.container_port, pod));
            }
        }
    }

    fn check_free(&self, pod: &PodId, port: &HostPort) -> Result<(), Error> {
        let mut others = self.ports.iter().filter(|(_, (_, owner))| owner != pod);
        match others.find(|(door, _)| door.clashes(&port.door())) {
            Some((_, (_, owner))) => Err(Error::PortTaken { port: *port, pod: owner.clone() }),
            None => Ok(()),
        }
    }

    fn claim_port(&mut self, pod: &PodId, port: &HostPort) -> Result<(), Error> {
        let claim = (port.container_port, pod.clone());
        if self.ports.get(&port.door()) == Some(&claim) {
            return Ok(());
        }
        let name = port_name(&port.door());
        let target = format!("{pod}:{}", port.container_port);
        // What is there is no claim of another pod, for memory would know it; so it is this pod's
        // with another container port, or litter.
        if !self.link(&name, &target)? {
            self.unlink(&name)?;
            self.link(&name, &target)?;
        }
        self.ports.insert(port.door(), claim);
        Ok(())
    }

    fn release_ports(&mut self, pod: &PodId, which: impl Fn(&Door) -> bool) -> Result<(), Error> {
        let own = self.ports.iter().filter(|(_, (_, owner))| owner == pod);
        let doors: Vec<Door> = own.map(|(door, _)| *door).filter(which).collect();
        for door in doors {
            self.unlink(&port_name(&door))?;
            self.ports.remove(&door);
        }
        Ok(())
    }

    /// Makes a link; false if something by that name is there.
    fn link(&self, name: &str, target: &str) -> Result<bool, Error> {
        let path = self.root.join(name);
        match self.link_in_root(&path, target) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            made => made.at("making", &path).map(|()| true),
        }
    }

    fn link_in_root(&self, path: &Path, target: &str) -> io::Result<()> {
        match symlink(target, path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
                symlink(target, path)
            }
            made => made,
        }
    }

    fn unlink(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.at("removing", &path),
        }
    }
}

fn read(entry: &fs::DirEntry) -> Option<(Claim, PodId)> {
    let target = fs::read_link(entry.path()).ok()?;
    parse(entry.file_name().to_str()?, target.to_str()?)
}

fn port_name(door: &Door) -> String {
    let Door { protocol, port, ip } = door;
    ip.map_or_else(|| format!("{protocol}:{port}"), |ip| format!("{protocol}:{port}@{ip}"))
}

fn host_port(door: &Door, container_port: u16) -> HostPort {
    let Door { protocol, port, ip } = *door;
    HostPort { protocol, host_ip: ip, host_port: port, container_port }
}

/// A place to begin the search after a restart, when nobody remembers which addresses were given
/// back last.
fn anywhere() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros())
}

#[cfg(test)]
mod tests;
