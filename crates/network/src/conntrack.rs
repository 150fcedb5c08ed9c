//! Forgetting connections. A flow that the kernel has seen keeps the destination it was given then,
//! and for UDP it is never seen to end: a client that goes on sending to a host port would for ever
//! reach the pod that was there before, or nothing.

use std::{io, net::IpAddr};

use rustix::io::Errno;

use crate::{
    lease::Door,
    link::octets,
    netlink::{Message, Socket},
    nft::header,
};

// linux/netfilter/nfnetlink_conntrack.h
const DELETE: u16 = 1 << 8 | 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const BY_SOURCE: u32 = 1 << 0;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;
/// IANA protocol number.
const UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Forgets every UDP flow to a port of the host, so that the next packet is led to the pod that has
/// the port now. Takes milliseconds: the kernel walks its whole table.
pub fn forget_port(socket: &mut Socket, door: &Door) -> io::Result<()> {
    let port = |m: Message| {
        m.attr(PROTOCOL_NUMBER, &[UDP]).attr(DESTINATION_PORT, &door.port.to_be_bytes())
    };
    let by = BY_PROTOCOL | BY_DESTINATION_PORT;
    let Some(ip) = door.bound() else {
        let families = [AF_INET, AF_INET6].into_iter().filter(|f| door.takes(*f == AF_INET));
        return families
            .map(|family| filtered(family, ORIGINAL, by, |m| m.nest(TUPLE_PROTOCOL, port)))
            .try_for_each(|message| delete(socket, message));
    };
    let destination = if ip.is_ipv4() { IPV4_DESTINATION } else { IPV6_DESTINATION };
    let message = filtered(family(ip), ORIGINAL, by | BY_DESTINATION, |m| {
        m.nest(TUPLE_IP, |m| m.attr(destination, &octets(ip))).nest(TUPLE_PROTOCOL, port)
    });
    delete(socket, message)
}

/// Forgets every UDP flow that was led to these addresses of a pod, so that it does not reach the
/// next pod there. Takes milliseconds: the kernel walks its whole table.
pub fn forget_addresses(socket: &mut Socket, addresses: &[IpAddr]) -> io::Result<()> {
    for ip in addresses {
        let source = if ip.is_ipv4() { IPV4_SOURCE } else { IPV6_SOURCE };
        let message = filtered(family(*ip), REPLY, BY_SOURCE | BY_PROTOCOL, |m| {
            m.nest(TUPLE_IP, |m| m.attr(source, &octets(*ip)))
                .nest(TUPLE_PROTOCOL, |m| m.attr(PROTOCOL_NUMBER, &[UDP]))
        });
        delete(socket, message)?;
    }
    Ok(())
}

/// A request to delete what is like `tuple` in its `direction`, in what `by` says.
fn filtered(
    family: u8,
    direction: u16,
    by: u32,
    tuple: impl FnOnce(Message) -> Message,
) -> Message {
    let flags = |this| if direction == this { by } else { 0 };
    Message::new(DELETE, 0, &header(family, 0)).nest(direction, tuple).nest(FILTER, |m| {
        m.number(FILTER_ORIGINAL, flags(ORIGINAL)).number(FILTER_REPLY, flags(REPLY))
    })
}

/// No such flow is fine, and so is a kernel that tracks none or is too old to choose among them
/// (before 5.8): flows are then forgotten when they time out.
fn delete(socket: &mut Socket, message: Message) -> io::Result<()> {
    match socket.ask(&[message]).map_err(|e| (e.raw_os_error(), e)) {
        Err((Some(code), _)) if FINE.iter().any(|fine| fine.raw_os_error() == code) => Ok(()),
        asked => asked.map_err(|(_, e)| e),
    }
}

const FINE: [Errno; 3] = [Errno::NOENT, Errno::OPNOTSUPP, Errno::INVAL];

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}
