//! How descriptors go from a shim to the daemon, on a unix socket next to the one of ttrpc, which
//! cannot carry them: what both ends keep. What flows through them does so without the shim.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::OFlags,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// The length of a token, in bytes: hexadecimal digits.
pub const TOKEN: usize = 32;

/// How many streams there can be.
const MOST: usize = 4;

/// Our ends of a command's, or a container's, streams: we write to stdin and read from the others.
/// With a terminal, a command has nothing else. None that was received blocks, and a terminal must
/// stay so, since the shim may read from it too.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// The master, to read and to write.
    pub terminal: Option<OwnedFd>,
}

impl Streams {
    /// Sends them, and their names in one byte. They stay ours too.
    pub fn send(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        let Self { stdin, stdout, stderr, terminal } = self;
        let (mut names, mut fds) = (0, Vec::with_capacity(MOST));
        for (place, fd) in [stdin, stdout, stderr, terminal].into_iter().enumerate() {
            if let Some(fd) = fd {
                names |= 1 << place;
                fds.push(fd.as_fd());
            }
        }
        send(to, names, &fds)
    }

    /// Receives what [`Streams::send`] has sent.
    ///
    /// # Errors
    /// `UnexpectedEof` if the other end has nothing for us, `InvalidData` if it is not that.
    pub fn receive(from: BorrowedFd<'_>) -> io::Result<Self> {
        let mut names = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(&mut names)];
        let read = recvmsg(from, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        for fd in &fds {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::named(names[0], fds).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn named(names: u8, fds: Vec<OwnedFd>) -> Option<Self> {
        if names >> MOST != 0 || names.count_ones() as usize != fds.len() {
            return None;
        }
        let mut fds = fds.into_iter();
        let mut next = |place: usize| if names & 1 << place == 0 { None } else { fds.next() };
        let (stdin, stdout, stderr, terminal) = (next(0), next(1), next(2), next(3));
        Some(Self { stdin, stdout, stderr, terminal })
    }
}

fn send(to: BorrowedFd<'_>, names: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let names = [names];
    sendmsg(to, &[IoSlice::new(&names)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use proptest::prelude::*;

    use super::*;

    /// A file with one byte in it.
    fn file(byte: u8) -> OwnedFd {
        let (from, to) = rustix::pipe::pipe().unwrap();
        File::from(to).write_all(&[byte]).unwrap();
        from
    }

    fn byte(fd: Option<OwnedFd>) -> Option<u8> {
        fd.map(|fd| {
            let mut byte = [0];
            File::from(fd).read_exact(&mut byte).unwrap();
            byte[0]
        })
    }

    proptest! {
        #[test]
        fn each_stream_arrives_in_its_own_place(wanted: [bool; 4]) {
            let (here, there) = UnixStream::pair().unwrap();
            let some = |place: usize| wanted[place].then(|| file(u8::try_from(place).unwrap()));
            let (stdin, stdout, stderr, terminal) = (some(0), some(1), some(2), some(3));
            Streams { stdin, stdout, stderr, terminal }.send(here.as_fd()).unwrap();
            (&here).write_all(&[7]).unwrap();
            let Streams { stdin, stdout, stderr, terminal } =
                Streams::receive(there.as_fd()).unwrap();
            let told = [stdin, stdout, stderr, terminal].map(byte);
            for (place, told) in told.into_iter().enumerate() {
                prop_assert_eq!(told.map(usize::from), wanted[place].then_some(place));
            }
            let mut next = [0];
            (&there).read_exact(&mut next).unwrap();
            prop_assert_eq!(next, [7], "what is said after it is not taken with it");
        }

        #[test]
        fn names_that_do_not_fit_the_descriptors_are_refused(names: u8, count in 0_usize..=MOST) {
            let (here, there) = UnixStream::pair().unwrap();
            let files: Vec<OwnedFd> = (0..count).map(|_| file(0)).collect();
            let fds: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
            send(here.as_fd(), names, &fds).unwrap();
            let right = names < 16 && names.count_ones() as usize == count;
            prop_assert_eq!(Streams::receive(there.as_fd()).is_ok(), right);
        }
    }

    #[test]
    fn an_end_without_a_word_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(here);
        let error = Streams::receive(there.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
