//! Links, addresses and routes: the bridge, and the pair of interfaces that ties a pod to it. It
//! knows names and numbers of interfaces, not which pod is which.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::{
    netlink::{
        Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket, attr, attrs, text, u32_at,
    },
    subnet::{Address, Mac},
};

/// What a pod's own interface is called, as everywhere.
pub const POD_IF: &str = "eth0";

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
// linux/if.h, linux/socket.h
const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `RTMGRP_LINK` and `RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
pub const NEWS_OF_LINKS: u32 = 1;
pub const NEWS_OF_ADDRESSES: u32 = 0x100;
/// `lo`, in every namespace.
const LOOPBACK: u32 = 1;

/// Bytes of `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// An interface, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth` and the like; empty for hardware.
    pub kind: String,
    /// The index of the bridge that it is a port of; 0 for none.
    pub master: u32,
    /// Whether it is up and connected (RFC 2863), as far as the kernel has noticed.
    pub state: u8,
}

/// The interface of this name.
pub fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let asked = Message::new(RTM_GETLINK, 0, &header(0, 0))
        .number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        .text(IFLA_IFNAME, name);
    match socket.get(asked, read_link) {
        Ok(link) => Ok(link),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Every interface.
pub fn all(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let asked =
        Message::new(RTM_GETLINK, 0, &header(0, 0)).number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    let mut links = Vec::new();
    socket.list(asked, |body| links.extend(read_link(body)))?;
    Ok(links)
}

/// Every address, with the index of the interface that has it.
pub fn addresses(socket: &mut Socket) -> io::Result<Vec<(u32, Address)>> {
    let mut found = Vec::new();
    socket.list(Message::new(RTM_GETADDR, 0, &[0; ADDRESS]), |body| {
        found.extend(read_address(body))
    })?;
    Ok(found)
}

/// Makes a bridge, down, or changes the one that is there.
pub fn make_bridge(socket: &mut Socket, name: &str, mac: Mac, mtu: Option<u32>) -> io::Result<()> {
    // With a MAC address of its own it does not take on that of whichever port comes and goes.
    let bridge = Message::new(RTM_NEWLINK, NLM_F_CREATE, &header(0, 0))
        .text(IFLA_IFNAME, name)
        .attr(IFLA_ADDRESS, &mac.0)
        .nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
    socket.ask(&[with_mtu(bridge, mtu)])
}

/// Gives an interface these addresses and raises it.
pub fn raise(socket: &mut Socket, index: u32, addresses: &[Address]) -> io::Result<()> {
    let mut messages: Vec<Message> = addresses.iter().map(|a| new_address(index, a)).collect();
    messages.push(up(index));
    socket.ask(&messages)
}

/// What a pair of interfaces is to be like.
pub struct Pair<'a> {
    /// The name of the host's end.
    pub host_if: &'a str,
    /// The index of the bridge.
    pub bridge: u32,
    /// The MAC address of the pod's end.
    pub mac: Mac,
    /// The MTU of both.
    pub mtu: Option<u32>,
    /// The pod's network namespace.
    pub netns: BorrowedFd<'a>,
}

/// Makes the pair, down: the pod's end in its namespace, the host's end a port of the bridge. In one
/// request the kernel makes both or none.
pub fn make_pair(socket: &mut Socket, pair: &Pair<'_>) -> io::Result<()> {
    let host = queues(Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, 0)))
        .text(IFLA_IFNAME, pair.host_if)
        .number(IFLA_MASTER, pair.bridge);
    let message = with_mtu(host, pair.mtu).nest(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA, |m| m.nest(VETH_INFO_PEER, |m| pod_end(m, pair)))
    });
    socket.ask(&[message])
}

fn pod_end(message: Message, pair: &Pair<'_>) -> Message {
    // The kernel refuses to raise this end before it has made the other.
    let end = queues(message.raw(&header(0, 0)))
        .text(IFLA_IFNAME, POD_IF)
        .attr(IFLA_ADDRESS, &pair.mac.0)
        .attr(IFLA_NET_NS_FD, &pair.netns.as_raw_fd().to_ne_bytes());
    with_mtu(end, pair.mtu)
}

/// Raises the host's end of a pair, and lets the bridge send back to the pod what the pod sent to a
/// host port of its own: on hosts where bridged packets pass through netfilter they come that way.
pub fn raise_port(socket: &mut Socket, host_if: &str) -> io::Result<()> {
    let port = Message::new(RTM_NEWLINK, 0, &header(0, IFF_UP)).text(IFLA_IFNAME, host_if).nest(
        IFLA_LINKINFO,
        |m| {
            m.text(IFLA_INFO_SLAVE_KIND, "bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |m| m.attr(IFLA_BRPORT_MODE, &[1]))
        },
    );
    socket.ask(&[port])
}

/// Raises the pod's end and gives it its addresses and default routes. The socket is one of the
/// pod's namespace.
pub fn configure(
    socket: &mut Socket,
    addresses: &[Address],
    gateways: &[IpAddr],
) -> io::Result<()> {
    let link = find(socket, POD_IF)?.ok_or(io::ErrorKind::NotFound)?;
    let mut messages = vec![up(LOOPBACK), up(link.index)];
    messages.extend(addresses.iter().map(|a| new_address(link.index, a)));
    messages.extend(gateways.iter().map(|gateway| default_route(link.index, *gateway)));
    socket.ask(&messages)
}

/// Waits until the kernel has noticed that an interface is connected, and acts on it: sends by it,
/// and forwards to it if it is a bridge's port. It leaves that to a worker; packets sent meanwhile
/// are lost, which costs a pod's first connection a second.
/// `news` opens a socket for [`NEWS_OF_LINKS`] in the namespace that `socket` is of.
pub fn await_carrier(
    socket: &mut Socket,
    name: &str,
    news: impl FnOnce() -> io::Result<Socket>,
) -> io::Result<()> {
    // Since Linux 6.8 asking is enough to have it noticed.
    if is_carrying(socket, name)? {
        return Ok(());
    }
    let mut news = news()?;
    while !is_carrying(socket, name)? {
        news.hear(|_| true)?;
    }
    Ok(())
}

/// Waits until IPv6 takes packets to these addresses, which it leaves to a worker too. `news` is of
/// [`NEWS_OF_ADDRESSES`], and older than the addresses.
pub fn await_addresses(news: &mut Socket, addresses: &[Address]) -> io::Result<()> {
    let ipv6 = addresses.iter().filter(|address| address.ip.is_ipv6());
    let mut awaited: Vec<IpAddr> = ipv6.map(|address| address.ip).collect();
    if awaited.is_empty() {
        return Ok(());
    }
    news.hear(|body| {
        let ready = read_address(body).map(|(_, address)| address.ip);
        awaited.retain(|ip| Some(*ip) != ready);
        awaited.is_empty()
    })
}

fn is_carrying(socket: &mut Socket, name: &str) -> io::Result<bool> {
    let link = find(socket, name)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(link.state == IF_OPER_UP)
}

/// Removes an interface, and with it the other end of its pair. Content if there is none.
pub fn unmake(socket: Socket, name: &str) -> io::Result<()> {
    let message = Message::new(RTM_DELLINK, 0, &header(0, 0)).text(IFLA_IFNAME, name);
    match socket.ask_early(message) {
        Err(e) if is_gone(&e) => Ok(()),
        removed => removed,
    }
}

/// Asks for an interface of this kind that can never be, to learn whether the kernel (or a module
/// that it loads when asked) knows the kind.
pub fn knows(socket: &mut Socket, kind: &str) -> io::Result<bool> {
    const TOO_SMALL: u32 = 1;
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, 0))
        .text(IFLA_IFNAME, "podbay-probe")
        .number(IFLA_MTU, TOO_SMALL)
        .nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, kind));
    match socket.ask(&[message]).map_err(|e| (e.raw_os_error(), e)) {
        Ok(()) => Ok(true),
        Err((Some(code), _)) if code == errno(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err((Some(code), _)) if code == errno(rustix::io::Errno::INVAL) => Ok(true),
        Err((_, e)) => Err(e),
    }
}

/// `struct ifinfomsg` (linux/rtnetlink.h); `flags` are those to set.
fn header(index: u32, flags: u32) -> [u8; LINK] {
    let mut bytes = [0; LINK];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &header(index, IFF_UP))
}

/// One queue in each direction: by default there is one for each CPU the machine could ever have,
/// and making them is most of the cost of a pair there.
fn queues(message: Message) -> Message {
    message.number(IFLA_NUM_TX_QUEUES, 1).number(IFLA_NUM_RX_QUEUES, 1)
}

fn with_mtu(message: Message, mtu: Option<u32>) -> Message {
    match mtu {
        Some(mtu) => message.number(IFLA_MTU, mtu),
        None => message,
    }
}

/// An address of ours is known to be nobody else's, so the kernel need not ask the neighbours for a
/// second before it may be used.
fn new_address(index: u32, address: &Address) -> Message {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let [a, b, c, d] = index.to_ne_bytes();
    let fixed = [family(address.ip), address.prefix, IFA_F_NODAD, 0, a, b, c, d];
    let bytes = octets(address.ip);
    Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed)
        .attr(IFA_LOCAL, &bytes)
        .attr(IFA_ADDRESS, &bytes)
}

fn default_route(index: u32, gateway: IpAddr) -> Message {
    // struct rtmsg: family, lengths, tos, table, protocol, scope, type, flags.
    let family = family(gateway);
    let fixed = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0, 0, 0, 0];
    Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed)
        .attr(RTA_GATEWAY, &octets(gateway))
        .number(RTA_OIF, index)
}

fn read_link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(body, 4)?, ..Link::default() };
    for (kind, value) in attrs(body, LINK) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_OPERSTATE => link.state = value.first().copied()?,
            IFLA_MASTER => link.master = u32_at(value, 0)?,
            IFLA_LINKINFO => {
                link.kind = attr(value, 0, IFLA_INFO_KIND).map(text).unwrap_or_default()
            }
            _ => {}
        }
    }
    Some(link)
}

fn read_address(body: &[u8]) -> Option<(u32, Address)> {
    let prefix = *body.get(1)?;
    let value = attr(body, ADDRESS, IFA_LOCAL).or_else(|| attr(body, ADDRESS, IFA_ADDRESS))?;
    let ip = match (<[u8; 4]>::try_from(value), <[u8; 16]>::try_from(value)) {
        (Ok(bytes), _) => IpAddr::from(bytes),
        (_, Ok(bytes)) => IpAddr::from(bytes),
        _ => return None,
    };
    Some((u32_at(body, 4)?, Address { ip, prefix }))
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// An address in network order.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn errno(code: rustix::io::Errno) -> i32 {
    code.raw_os_error()
}

fn is_gone(e: &io::Error) -> bool {
    e.raw_os_error() == Some(errno(rustix::io::Errno::NODEV))
}
