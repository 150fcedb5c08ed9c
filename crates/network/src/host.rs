//! What the host has once for all pods: the bridge and the switches of the network stack. Blocks; the
//! rules beside it are `nft`'s business.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use rustix::io::Errno;

use crate::{
    config::Config,
    error::{Doing, Error},
    link::{self, Link},
    netlink::Socket,
    nft::Table,
    subnet::{Address, Mac, Subnet},
    sysctl,
};

/// With it the host asks for pods' MAC addresses on behalf of others. It has another one of its own
/// making, but uses that only when it has seen for two seconds that it is alone with it, and until
/// then drops what it has to forward.
const LINK_LOCAL: Address =
    Address { ip: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), prefix: 64 };

/// Makes the bridge, or makes right the one that is there. Returns its index.
pub fn make(config: &Config) -> Result<u32, Error> {
    let name = &config.bridge;
    let mut socket = route(config.deadline)?;
    check_name(&mut socket, name)?;
    check_subnets(&mut socket, config)?;
    let mut addresses: Vec<Address> = config.subnets.iter().map(Subnet::gateway).collect();
    let mac = Mac::of(addresses[0].ip);
    if config.has(false) {
        addresses.push(LINK_LOCAL);
    }
    link::make_bridge(&mut socket, name, mac, config.mtu)
        .doing(|| format!("making the bridge {name}"))?;
    // Before it is up, so that no pod can ever pass for the host's router.
    sysctl::set_if_there(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    let index = find(&mut socket, name)?.map(|link| link.index);
    let index = index.ok_or_else(|| Error::Vanished(name.clone()))?;
    link::raise(&mut socket, index, &addresses).doing(|| format!("giving {name} its addresses"))?;
    forward(config)?;
    Ok(index)
}

/// Whether the bridge is still the one of this index.
pub fn is_bridge(config: &Config, index: u32) -> Result<bool, Error> {
    let link = find(&mut route(config.deadline)?, &config.bridge)?;
    Ok(link.is_some_and(|link| link.index == index))
}

/// Removes the bridge and the table. Content with neither.
pub fn unmake(config: &Config, table: &mut Table) -> Result<(), Error> {
    table.unmake().doing(|| "removing the nft table".to_owned())?;
    let mut socket = route(config.deadline)?;
    match find(&mut socket, &config.bridge)? {
        Some(Link { kind, .. }) if kind == "bridge" => link::unmake(socket, &config.bridge)
            .doing(|| format!("removing the bridge {}", config.bridge)),
        _ => Ok(()),
    }
}

/// Whether the kernel has what we need, by asking it.
pub fn check_kernel(config: &Config, table: &mut Table) -> Result<(), Error> {
    let mut socket = route(config.deadline)?;
    for kind in ["bridge", "veth"] {
        if !link::knows(&mut socket, kind).doing(|| format!("asking the kernel about {kind}"))? {
            return Err(Error::KernelLacks(kind));
        }
    }
    has_table(table).map(|_| ())
}

/// Opens a socket for links in the host's namespace.
pub fn route(limit: Duration) -> Result<Socket, Error> {
    Socket::route(limit).doing(|| "opening a netlink socket".to_owned())
}

/// Whether the table is there.
pub fn has_table(table: &mut Table) -> Result<bool, Error> {
    let lacks = |e: &io::Error, code: Errno| e.raw_os_error() == Some(code.raw_os_error());
    match table.exists() {
        Err(e) if lacks(&e, Errno::PROTONOSUPPORT) => Err(Error::KernelLacks("nfnetlink")),
        // nfnetlink says so when nobody answers for nf_tables.
        Err(e) if lacks(&e, Errno::INVAL) => Err(Error::KernelLacks("nf_tables")),
        exists => exists.doing(|| "looking for the nft table".to_owned()),
    }
}

fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    link::find(socket, name).doing(|| format!("looking for {name}"))
}

fn check_name(socket: &mut Socket, name: &str) -> Result<(), Error> {
    match find(socket, name)? {
        Some(link) if link.kind != "bridge" => Err(Error::NotABridge(name.to_owned())),
        _ => Ok(()),
    }
}

/// Refuses a subnet that another interface uses: answers to pods would go there.
fn check_subnets(socket: &mut Socket, config: &Config) -> Result<(), Error> {
    let links = link::all(socket).doing(|| "listing interfaces".to_owned())?;
    let addresses = link::addresses(socket).doing(|| "listing addresses".to_owned())?;
    for (index, address) in addresses {
        let other = Subnet::around(address.ip, address.prefix);
        let Some(subnet) = config.subnets.iter().find(|subnet| subnet.overlaps(&other)) else {
            continue;
        };
        let link = links.iter().find(|link| link.index == index).map_or("", |link| &link.name);
        if link != config.bridge {
            let (link, address) = (link.to_owned(), address.to_string());
            return Err(Error::SubnetInUse { subnet: *subnet, link, address });
        }
    }
    Ok(())
}

fn forward(config: &Config) -> Result<(), Error> {
    if config.has(true) {
        sysctl::set("ipv4/ip_forward", "1")?;
    }
    if config.has(false) { sysctl::forward_ipv6() } else { Ok(()) }
}
