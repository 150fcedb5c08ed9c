//! nftables: one table of ours, named after the bridge, with the rules for traffic that leaves the
//! subnets and for host ports.
//!
//! The program `nft` reads the rules once, as the text that people know. Pods with host ports are
//! then elements of maps in that table, put and erased over netlink, so that a pod costs no program.
//!
//! Nothing here can overrule a table of somebody else that drops forwarded packets: in netfilter a
//! drop is final and an accept is not.

use std::{
    fmt::Write, io, net::IpAddr, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio,
    time::Duration,
};

use rustix::io::Errno;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    error::{Doing, Error},
    lease::{Door, HostPort},
    link::octets,
    netlink::{Message, NLM_F_CREATE, Socket},
    subnet::Subnet,
};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const TABLE_NAME: u16 = 1;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_VALUE: u16 = 2;
const VALUE: u16 = 1;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
const INET: u8 = 1;

/// Where `nft` is looked for besides `PATH`, which leaves these out for some users.
const SBIN: &str = "/usr/sbin:/sbin:/usr/local/sbin";

/// The name of the table that belongs to a bridge.
pub fn table(bridge: &str) -> String {
    format!("podbay-{bridge}")
}

/// Where a host port leads: an element in a map, and one in the set of what is led to.
struct Element {
    set: &'static str,
    key: Vec<u8>,
    /// In text, for the rules: the key, and after a colon the value.
    text: String,
    value: Vec<u8>,
}

/// What a pod with these addresses and host ports puts into the maps and sets.
fn elements(addresses: &[IpAddr], ports: &[HostPort]) -> Vec<Element> {
    let pairs = ports.iter().flat_map(|port| addresses.iter().map(move |ip| (port, *ip)));
    pairs
        .filter(|(port, ip)| port.door().takes(ip.is_ipv4()))
        .flat_map(|(port, ip)| [door(port, ip), served(port, ip)])
        .collect()
}

fn door(port: &HostPort, pod: IpAddr) -> Element {
    let Door { protocol, port: host_port, .. } = port.door();
    let to = port.container_port;
    let mut key = Vec::new();
    let mut text = String::new();
    if let Some(ip) = port.door().bound() {
        key.extend(octets(ip));
        text = format!("{ip} . ");
    }
    key.extend(padded(&[protocol.number()]));
    key.extend(padded(&host_port.to_be_bytes()));
    let set = match (port.door().bound().is_some(), pod.is_ipv4()) {
        (true, true) => "bound4",
        (true, false) => "bound6",
        (false, true) => "ports4",
        (false, false) => "ports6",
    };
    let text = format!("{text}{protocol} . {host_port} : {pod} . {to}");
    Element { set, key, text, value: [octets(pod), padded(&to.to_be_bytes())].concat() }
}

fn served(port: &HostPort, pod: IpAddr) -> Element {
    let (protocol, to) = (port.protocol, port.container_port);
    let key = [octets(pod), padded(&[protocol.number()]), padded(&to.to_be_bytes())].concat();
    let set = if pod.is_ipv4() { "served4" } else { "served6" };
    Element { set, key, text: format!("{pod} . {protocol} . {to}"), value: Vec::new() }
}

/// Each part of a key that is made of several fills whole words.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut word = bytes.to_vec();
    word.resize(bytes.len().next_multiple_of(4), 0);
    word
}

/// The rules as text for `nft`. They replace the table as a whole, in one transaction. `pods` are
/// the addresses and host ports of every pod that has host ports.
pub fn rules(bridge: &str, subnets: &[Subnet], pods: &[(Vec<IpAddr>, Vec<HostPort>)]) -> String {
    let table = table(bridge);
    let elements: Vec<Element> =
        pods.iter().flat_map(|(addresses, ports)| elements(addresses, ports)).collect();
    let sets: String = SETS.iter().map(|(name, kind)| set(name, kind, &elements)).collect();
    let leaving: String = subnets.iter().map(|subnet| leaving(bridge, subnet)).collect();
    format!(
        "table inet {table}
delete table inet {table}
table inet {table} {{
{sets}
  # Host ports need route_localnet on the bridge; this keeps pods from the host's own loopback.
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{bridge}\" ip saddr 127.0.0.0/8 drop
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
  }}
  chain doors {{
    dnat ip to ip daddr . meta l4proto . th dport map @bound4
    dnat ip to meta l4proto . th dport map @ports4
    ip6 daddr ::1 return
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
    dnat ip6 to meta l4proto . th dport map @ports6
  }}
  # Only what is addressed to the host itself, or a pod would take others' traffic for its port.
  chain from_outside {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump doors
  }}
  chain from_host {{
    type nat hook output priority -100; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump doors
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
{leaving}  }}
}}
"
    )
}

const SETS: [(&str, &str); 6] = [
    ("ports4", "map: inet_proto . inet_service : ipv4_addr . inet_service"),
    ("ports6", "map: inet_proto . inet_service : ipv6_addr . inet_service"),
    ("bound4", "map: ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
    ("bound6", "map: ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"),
    ("served4", "set: ipv4_addr . inet_proto . inet_service"),
    ("served6", "set: ipv6_addr . inet_proto . inet_service"),
];

fn set(name: &str, kind: &str, elements: &[Element]) -> String {
    let (what, kind) = kind.split_once(": ").unwrap_or(("set", kind));
    let own = elements.iter().filter(|e| e.set == name).map(|e| e.text.as_str());
    let mut own: Vec<&str> = own.collect();
    // Two host ports may lead to one port of a pod, which `nft` would call a conflict in some versions.
    own.sort_unstable();
    own.dedup();
    let elements = match own.as_slice() {
        [] => String::new(),
        own => format!(" elements = {{ {} }}", own.join(", ")),
    };
    format!("  {what} {name} {{ type {kind};{elements} }}\n")
}

/// Traffic from a subnet takes the host's address when it leaves for elsewhere, and the gateway's
/// when it comes back to a pod through a host port: else the answer would go straight to the asking
/// pod, which expects it from the host.
fn leaving(bridge: &str, subnet: &Subnet) -> String {
    let (ip, multicast, served) = match subnet.is_ipv4() {
        true => ("ip", "224.0.0.0/4", "served4"),
        false => ("ip6", "ff00::/8", "served6"),
    };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "    oifname \"{bridge}\" {ip} saddr {subnet} ct status dnat \
         {ip} daddr . meta l4proto . th dport @{served} masquerade"
    );
    let _ = writeln!(
        text,
        "    oifname != \"{bridge}\" {ip} saddr {subnet} {ip} daddr != {{ {subnet}, {multicast} }} \
         masquerade"
    );
    text
}

/// Where the program `nft` is.
pub fn program() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(std::env::split_paths(SBIN));
    places.map(|dir| dir.join("nft")).find(is_program).ok_or(Error::NoNft)
}

fn is_program(file: &PathBuf) -> bool {
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Has `nft` do what the rules say. It is killed when the caller stops waiting.
pub async fn load(bridge: &str, rules: &str) -> Result<(), Error> {
    let mut command = Command::new(program()?);
    command.args(["-f", "-"]).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let ran = run(command, rules).await.doing(|| "running nft".to_owned())?;
    if ran.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&ran.stderr).trim().chars().take(2000).collect();
    Err(Error::NftRefused { table: table(bridge), said })
}

async fn run(mut command: Command, rules: &str) -> io::Result<std::process::Output> {
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on its standard error.
        let _ = stdin.write_all(rules.as_bytes()).await;
    }
    child.wait_with_output().await
}

/// The table of one bridge, over netlink. Its socket is kept: closing one makes the kernel wait until
/// all that anybody has erased is gone from memory, which takes longer than anything else here.
pub struct Table {
    name: String,
    limit: Duration,
    socket: Option<Socket>,
}

impl Table {
    pub fn of(bridge: &str, limit: Duration) -> Table {
        Table { name: table(bridge), limit, socket: None }
    }

    /// Talks to netfilter. After an error the socket may hold answers that nobody asked for.
    pub fn talk<T>(&mut self, talk: impl FnOnce(&mut Socket) -> io::Result<T>) -> io::Result<T> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::netfilter(self.limit)?,
        };
        let said = talk(&mut socket)?;
        self.socket = Some(socket);
        Ok(said)
    }

    pub fn exists(&mut self) -> io::Result<bool> {
        let asked = Message::new(GET_TABLE, 0, &header(INET, 0)).text(TABLE_NAME, &self.name);
        match self.talk(|socket| socket.get(asked, |_| ())) {
            Ok(()) => Ok(true),
            Err(e) if is(&e, Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes the table. Content if there is none.
    pub fn unmake(&mut self) -> io::Result<()> {
        let message = Message::new(DELETE_TABLE, 0, &header(INET, 0)).text(TABLE_NAME, &self.name);
        self.transact(&[message]).or_else(ignore_missing)
    }

    /// Opens the host ports of a pod. One that leads elsewhere is led to this pod.
    pub fn put(&mut self, addresses: &[IpAddr], ports: &[HostPort]) -> io::Result<()> {
        let elements = elements(addresses, ports);
        let new: Vec<Message> = elements.iter().map(|e| self.new_element(e)).collect();
        match self.transact(&new) {
            Err(e) if is(&e, Errno::EXIST) => {
                self.erase(addresses, ports)?;
                self.transact(&new)
            }
            put => put,
        }
    }

    /// Closes the host ports of a pod. Content with those that are not open.
    pub fn erase(&mut self, addresses: &[IpAddr], ports: &[HostPort]) -> io::Result<()> {
        let elements = elements(addresses, ports);
        let old = |e: &Element| self.element(DELETE_ELEMENT, 0, e, |m| m);
        let mut old: Vec<Message> = elements.iter().map(old).collect();
        match self.transact(&old) {
            Err(e) if is(&e, Errno::NOENT) => {}
            erased => return erased,
        }
        // What is missing undoes the whole of a transaction, so now each has one of its own.
        while let Some(message) = old.pop() {
            self.transact(&[message]).or_else(ignore_missing)?;
        }
        Ok(())
    }

    fn new_element(&self, element: &Element) -> Message {
        self.element(NEW_ELEMENT, NLM_F_CREATE, element, |m| match element.value.as_slice() {
            [] => m,
            value => m.nest(ELEMENT_VALUE, |m| m.attr(VALUE, value)),
        })
    }

    fn element(
        &self,
        kind: u16,
        flags: u16,
        element: &Element,
        value: impl FnOnce(Message) -> Message,
    ) -> Message {
        Message::new(kind, flags, &header(INET, 0))
            .text(ELEMENTS_TABLE, &self.name)
            .text(ELEMENTS_SET, element.set)
            .nest(ELEMENTS, |m| {
                m.nest(ELEMENT, |m| value(m.nest(ELEMENT_KEY, |m| m.attr(VALUE, &element.key))))
            })
    }

    fn transact(&mut self, messages: &[Message]) -> io::Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let begin = Message::new(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
        let end = Message::new(BATCH_END, 0, &header(0, SUBSYSTEM));
        self.talk(|socket| socket.transact(&begin, messages, &end))
    }
}

/// `struct nfgenmsg`: family, version, and for a batch the subsystem it is for.
pub fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn is(e: &io::Error, code: Errno) -> bool {
    e.raw_os_error() == Some(code.raw_os_error())
}

fn ignore_missing(e: io::Error) -> io::Result<()> {
    if is(&e, Errno::NOENT) { Ok(()) } else { Err(e) }
}
