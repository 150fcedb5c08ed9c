//! Netlink: messages as bytes, and a socket to exchange them with the kernel. It serves routing
//! (links, addresses, routes) and netfilter alike, and knows the meaning of neither.
//!
//! Written here and not taken from a crate because attaching a pod must put several requests into
//! one send and wait for no task in between: the kernel does the work within `send`, so the answers
//! are there when it returns.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv,
    send, socket_with, sockopt,
};
use tokio::task::spawn_blocking;

// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_ECHO: u16 = 0x8;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Fails if what is to be made exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Replaces what exists.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Makes what does not exist.
pub const NLM_F_CREATE: u16 = 0x400;

const HEADER: usize = 16;
/// The kernel fills at most 32 KiB at a time when it lists things.
const ANSWER: usize = 64 << 10;

/// One request: a header, the fixed part of its kind, and attributes.
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of this kind whose fixed part is `fixed`.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut body = Vec::with_capacity(256);
        body.extend_from_slice(fixed);
        Message { kind, flags, body }
    }

    /// With an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Message {
        let start = self.open(kind);
        self.body.extend_from_slice(value);
        self.close(start)
    }

    /// With an attribute that is text ended by a zero byte.
    pub fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// With an attribute that is a number in the machine's own order.
    pub fn number(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// With an attribute that holds others.
    pub fn nest(mut self, kind: u16, inner: impl FnOnce(Message) -> Message) -> Message {
        let start = self.open(kind | NLA_F_NESTED);
        inner(self).close(start)
    }

    /// With plain bytes, as some nests begin with.
    pub fn raw(mut self, bytes: &[u8]) -> Message {
        self.body.extend_from_slice(bytes);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.body.len();
        self.body.extend_from_slice(&[0, 0]);
        self.body.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(mut self, start: usize) -> Message {
        let length = u16::try_from(self.body.len() - start)
            .expect("an attribute of ours is far shorter than 64 KiB");
        self.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    fn write(&self, to: &mut Vec<u8>, flags: u16, sequence: u32) {
        let length = u32::try_from(HEADER + self.body.len())
            .expect("a message of ours is far shorter than 4 GiB");
        to.extend_from_slice(&length.to_ne_bytes());
        to.extend_from_slice(&self.kind.to_ne_bytes());
        to.extend_from_slice(&(self.flags | flags | NLM_F_REQUEST).to_ne_bytes());
        to.extend_from_slice(&sequence.to_ne_bytes());
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&self.body);
    }
}

/// A socket to the kernel, in the network namespace of the thread that opened it, for ever. Blocks;
/// each answer is waited for no longer than the limit given. After an error it may hold answers
/// that nobody asked for, so it is then thrown away.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// For links, addresses and routes.
    pub fn route(limit: Duration) -> io::Result<Socket> {
        // The protocol of number 0.
        Socket::open(None, limit)
    }

    /// For nftables and connection tracking.
    pub fn netfilter(limit: Duration) -> io::Result<Socket> {
        Socket::open(Some(netlink::NETFILTER), limit)
    }

    /// For news of links, or of IPv6 addresses (groups of linux/rtnetlink.h).
    pub fn news_of(groups: u32, limit: Duration) -> io::Result<Socket> {
        let socket = Socket::route(limit)?;
        bind(&socket.fd, &netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    fn open(protocol: Option<Protocol>, limit: Duration) -> io::Result<Socket> {
        let fd =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(fd.as_fd(), sockopt::Timeout::Recv, Some(limit))?;
        Ok(Socket { fd, sequence: 0, buffer: vec![0; ANSWER] })
    }

    /// Has the kernel do all of these, in order and in one send. It tries the later ones also when
    /// one fails; the error is that of the first.
    pub fn ask(&mut self, messages: &[Message]) -> io::Result<()> {
        let last = self.send(messages, NLM_F_ACK)?;
        self.answers(|answer| match answer {
            Answer::End { sequence, outcome } => outcome.map(|()| sequence == last),
            Answer::Item { .. } => Ok(false),
        })
    }

    /// Has the kernel do all of these as one transaction, between `begin` and `end`, which it does
    /// not acknowledge.
    pub fn transact(
        &mut self,
        begin: &Message,
        messages: &[Message],
        end: &Message,
    ) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(1024);
        begin.write(&mut bytes, 0, self.next());
        for message in messages {
            message.write(&mut bytes, NLM_F_ACK, self.next());
        }
        let last = self.sequence;
        end.write(&mut bytes, 0, self.next());
        self.transmit(&bytes)?;
        self.answers(|answer| match answer {
            Answer::End { sequence, outcome } => outcome.map(|()| sequence == last),
            Answer::Item { .. } => Ok(false),
        })
    }

    /// Asks for one thing and has its fixed part and attributes read by `read`.
    pub fn get<T>(&mut self, message: Message, read: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        let last = self.send(&[message], 0)?;
        self.first_item(last, read)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Lists things, each of which `read` is shown.
    pub fn list(&mut self, message: Message, mut read: impl FnMut(&[u8])) -> io::Result<()> {
        let last = self.send(&[message], NLM_F_DUMP)?;
        self.answers(|answer| match answer {
            Answer::End { sequence, outcome } => outcome.map(|()| sequence == last),
            Answer::Item { body } => {
                read(body);
                Ok(false)
            }
        })
    }

    /// Waits until there is a piece of news that `enough` is content with.
    pub fn hear(&mut self, mut enough: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.answers(|answer| match answer {
            Answer::Item { body } => Ok(enough(body)),
            Answer::End { .. } => Ok(false),
        })
    }

    /// Has the kernel do this, and returns once it is done, though the kernel goes on to tidy up
    /// before it would acknowledge that. Kernels before 6.2 tell only then. Needs tokio's context.
    pub fn ask_early(mut self, message: Message) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(256);
        message.write(&mut bytes, NLM_F_ACK | NLM_F_ECHO, self.next());
        let fd = self.fd.try_clone()?;
        // The kernel works within `send`; what there is to hear about it comes in by the same socket.
        spawn_blocking(move || send(&fd, &bytes, SendFlags::empty()));
        self.answers(|answer| match answer {
            Answer::End { outcome, .. } => outcome.map(|()| true),
            Answer::Item { .. } => Ok(true),
        })
    }

    fn first_item<T>(
        &mut self,
        last: u32,
        mut read: impl FnMut(&[u8]) -> T,
    ) -> io::Result<Option<T>> {
        let mut found = None;
        self.answers(|answer| match answer {
            Answer::End { sequence, outcome } => outcome.map(|()| sequence == last),
            Answer::Item { body } => {
                found = Some(read(body));
                Ok(true)
            }
        })?;
        Ok(found)
    }

    fn send(&mut self, messages: &[Message], flags: u16) -> io::Result<u32> {
        let mut bytes = Vec::with_capacity(512);
        for message in messages {
            message.write(&mut bytes, flags, self.next());
        }
        self.transmit(&bytes)?;
        Ok(self.sequence)
    }

    fn transmit(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.fd, bytes, SendFlags::empty())?;
        Ok(())
    }

    fn next(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// Shows `see` every answer until it says that this was the last.
    fn answers(&mut self, mut see: impl FnMut(Answer<'_>) -> io::Result<bool>) -> io::Result<()> {
        loop {
            let (_, length) = match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                received => received?,
            };
            for answer in parse(&self.buffer[..length]) {
                if see(answer)? {
                    return Ok(());
                }
            }
        }
    }
}

/// What the kernel said to a request.
pub enum Answer<'a> {
    /// It is done, well or not.
    End {
        /// Which request.
        sequence: u32,
        /// How it went.
        outcome: io::Result<()>,
    },
    /// One of the things asked for.
    Item {
        /// Its fixed part and attributes.
        body: &'a [u8],
    },
}

/// Takes received bytes apart. Stops at what makes no sense.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let kind = u16_at(rest, 4)?;
        let sequence = u32_at(rest, 8)?;
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(match kind {
            NLMSG_ERROR | NLMSG_DONE => Answer::End { sequence, outcome: outcome(body) },
            _ => Answer::Item { body },
        })
    })
}

/// The attributes of a thing whose fixed part is `fixed` bytes long. Stops at what makes no sense.
pub fn attrs(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the attribute `kind`.
pub fn attr(body: &[u8], fixed: usize, kind: u16) -> Option<&[u8]> {
    attrs(body, fixed).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Text that ends at a zero byte.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The number at this offset.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A listing that ends without a word went well, as a request acknowledged with 0 did.
fn outcome(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map_or(0, |code| code.cast_signed()) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_read_again() {
        let message = Message::new(16, 0, &[7; 8])
            .text(3, "lo")
            .nest(18, |m| m.raw(&[1; 4]).number(2, 1500))
            .attr(1, &[9]);
        assert_eq!(message.body.len(), 8 + 8 + (4 + 4 + 8) + 8);
        let found: Vec<u16> = attrs(&message.body, 8).map(|(kind, _)| kind).collect();
        assert_eq!(found, [3, 18, 1]);
        assert_eq!(text(attr(&message.body, 8, 3).unwrap()), "lo");
        let nest = attr(&message.body, 8, 18).unwrap();
        assert_eq!(u32_at(attr(nest, 4, 2).unwrap(), 0), Some(1500));
    }

    #[test]
    fn the_kernel_says_no_to_nonsense_and_yes_to_a_listing() {
        let mut socket = Socket::route(Duration::from_secs(5)).unwrap();
        let mut links = 0;
        socket.list(Message::new(18, 0, &[0; 16]), |_| links += 1).unwrap();
        assert!(links > 0, "there is always lo");
        let refused = socket.ask(&[Message::new(18, 0, &[0; 16]).text(3, "no-such-link")]);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(19), "ENODEV");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes).count();
            let _ = attrs(&bytes, 16).count();
            let _ = text(&bytes);
        }
    }
}
