//! Rules of others that drop what pods send. We can neither overrule nor change them, but say where
//! they are and what to add.

use std::{fmt, io};

use crate::{
    netlink::{Message, Socket, attr, attrs, text},
    nft::header,
};

// linux/netfilter/nf_tables.h
const GET_CHAIN: u16 = 10 << 8 | 4;
const GET_RULE: u16 = 10 << 8 | 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const RULE_TABLE: u16 = 1;
/// `NF_INET_FORWARD` and `NF_DROP` (linux/netfilter.h), as numbers in network order.
const FORWARD: [u8; 4] = [0, 0, 0, 2];
const DROP: [u8; 4] = [0; 4];
/// Bytes of `struct nfgenmsg`.
const FIXED: usize = 4;

/// A chain of somebody else whose policy drops forwarded packets, in a table without a rule about
/// our bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    family: &'static str,
    table: String,
    chain: String,
    bridge: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Obstacle { family, table, chain, bridge } = self;
        write!(
            f,
            "the chain {chain} of table {family} {table} drops forwarded packets, those of pods too; \
             to accept them: nft insert rule {family} {table} {chain} iifname {bridge} accept; \
             nft insert rule {family} {table} {chain} oifname {bridge} accept"
        )
    }
}

/// Finds them.
pub fn find(socket: &mut Socket, bridge: &str) -> io::Result<Vec<Obstacle>> {
    let mut found = Vec::new();
    socket.list(Message::new(GET_CHAIN, 0, &header(0, 0)), |body| {
        found.extend(read_chain(body, bridge));
    })?;
    if found.is_empty() {
        return Ok(found);
    }
    let mut about_us = Vec::new();
    socket.list(Message::new(GET_RULE, 0, &header(0, 0)), |body| {
        if contains(body, bridge.as_bytes()) {
            about_us.push((family(body), attr(body, FIXED, RULE_TABLE).map(text)));
        }
    })?;
    found.retain(|o| !about_us.contains(&(Some(o.family), Some(o.table.clone()))));
    Ok(found)
}

fn read_chain(body: &[u8], bridge: &str) -> Option<Obstacle> {
    let hook = attr(body, FIXED, CHAIN_HOOK)?;
    let forwards = attrs(hook, 0).any(|attr| attr == (HOOK_NUMBER, &FORWARD[..]));
    if !forwards || attr(body, FIXED, CHAIN_POLICY)? != DROP {
        return None;
    }
    Some(Obstacle {
        family: family(body)?,
        table: text(attr(body, FIXED, CHAIN_TABLE)?),
        chain: text(attr(body, FIXED, CHAIN_NAME)?),
        bridge: bridge.to_owned(),
    })
}

/// The families whose packets are pods' (`NFPROTO_*`).
fn family(body: &[u8]) -> Option<&'static str> {
    match body.first()? {
        1 => Some("inet"),
        2 => Some("ip"),
        10 => Some("ip6"),
        _ => None,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_chain(&bytes, "podbay0");
        }
    }
}
