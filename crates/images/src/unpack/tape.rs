//! A tar archive as its members, one after the other, from a reader that cannot go back.
//!
//! The layout of a header is the `tar` crate's; which bytes belong to which member is decided here,
//! strictly: where two readers could disagree about that (CVE-2025-62518), the archive is refused.
//! Nothing is unpacked here.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{fault::Fault, number::number, pax::Pax};

const BLOCK: usize = 512;
/// The most that one block of PAX records may hold.
const MOST_PAX: u64 = 1 << 20;
/// The most that a GNU long name may hold.
const MOST_NAME: u64 = 1 << 16;
/// The most pieces that a sparse file may have.
const MOST_PIECES: usize = 1 << 16;
/// The largest number that a header's size field can hold in octal.
const MOST_OCTAL: u64 = 0o77_777_777_777;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Char(Device),
    Block(Device),
    Fifo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// A piece of a file that has bytes in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub length: u64,
}

/// One member of an archive.
#[derive(Clone, Debug)]
pub struct Member {
    /// As it is written: not yet made safe.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// With the set-id and sticky bits, without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds after them.
    pub mtime: (i64, i64),
    /// Bytes of a file, holes included.
    pub size: u64,
    /// The pieces of a file, in order; all else is holes.
    pub pieces: Vec<Piece>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads an archive member by member. After a member, its bytes are read from the tape itself; what
/// is left of them is passed over.
pub struct Tape<R> {
    reader: R,
    /// Bytes of the present member that were not read yet.
    left: u64,
    /// Bytes after them, up to the next block.
    padding: u64,
}

/// What extension members say about the next one.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.name.is_none() && self.link.is_none()
    }
}

impl<R: Read> Tape<R> {
    pub fn new(reader: R) -> Tape<R> {
        Tape { reader, left: 0, padding: 0 }
    }

    /// The reader: after a member, where its stored bytes begin.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// The next member, or `None` at the end, when all the rest has been read and was zeros.
    pub fn member(&mut self) -> Result<Option<Member>, Fault> {
        let mut extensions = Extensions::default();
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else {
                let dangling = !extensions.is_empty();
                return if dangling { Err(bad("it ends before a member")) } else { Ok(None) };
            };
            let size = size_of(&header)?;
            match header.entry_type() {
                EntryType::XHeader => self.pax(size, &mut extensions)?,
                EntryType::XGlobalHeader => self.global_pax(size)?,
                EntryType::GNULongName => self.long(size, |e| &mut e.name, &mut extensions)?,
                EntryType::GNULongLink => self.long(size, |e| &mut e.link, &mut extensions)?,
                _ => return self.described(&header, size, extensions).map(Some),
            }
        }
    }

    fn pass_over(&mut self) -> Result<(), Fault> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let passed = io::copy(&mut (&mut self.reader).take(rest), &mut io::sink());
        match passed.map_err(Fault::Read)? == rest {
            true => Ok(()),
            false => Err(bad("it ends within a member")),
        }
    }

    /// The next header; `None` at the end of the archive, with or without its blocks of zeros.
    fn header(&mut self) -> Result<Option<Header>, Fault> {
        let mut header = Header::new_old();
        match fill(&mut self.reader, header.as_mut_bytes())? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(bad("it ends within a header")),
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            return self.only_zeros().map(|()| None);
        }
        if number(&header.as_old().cksum) != Some(sum(&header)) {
            return Err(bad("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Reads all that follows the end of the archive. Something other than zeros there would be an
    /// archive within the archive, seen by some readers only.
    fn only_zeros(&mut self) -> Result<(), Fault> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = fill(&mut self.reader, &mut buffer)?;
            if buffer[..length].iter().any(|b| *b != 0) {
                return Err(bad("it goes on after its end"));
            }
            if length < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Reads the whole body of an extension member.
    fn body(&mut self, size: u64, most: u64) -> Result<Vec<u8>, Fault> {
        if size > most {
            return Err(Fault::TooMuch { what: "bytes of extended header", limit: most });
        }
        (self.left, self.padding) = (size, padding(size));
        let mut body = Vec::new();
        (&mut self.reader).take(size).read_to_end(&mut body).map_err(Fault::Read)?;
        self.left -= body.len() as u64;
        if self.left == 0 { Ok(body) } else { Err(bad("it ends within a member")) }
    }

    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> Result<(), Fault> {
        let pax = Pax::parse(&self.body(size, MOST_PAX)?).map_err(bad)?;
        match extensions.pax.replace(pax) {
            None => Ok(()),
            Some(_) => Err(bad("two extended headers describe one member")),
        }
    }

    fn global_pax(&mut self, size: u64) -> Result<(), Fault> {
        let pax = Pax::parse(&self.body(size, MOST_PAX)?).map_err(bad)?;
        if pax.matters() {
            return Err(bad(
                "a global extended header has names or sizes, read differently by all",
            ));
        }
        Ok(())
    }

    fn long(
        &mut self,
        size: u64,
        slot: fn(&mut Extensions) -> &mut Option<Vec<u8>>,
        extensions: &mut Extensions,
    ) -> Result<(), Fault> {
        let mut name = self.body(size, MOST_NAME)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        if name.contains(&0) {
            return Err(Fault::archive(&name, "a name holds a NUL"));
        }
        match slot(extensions).replace(name) {
            None => Ok(()),
            Some(_) => Err(bad("two long names describe one member")),
        }
    }

    fn described(
        &mut self,
        header: &Header,
        size: u64,
        extensions: Extensions,
    ) -> Result<Member, Fault> {
        let Extensions { pax, name, link } = extensions;
        let pax = pax.unwrap_or_default();
        let path = one(pax.path, name, || header.path_bytes().into_owned())?;
        let wrong = |why: &'static str| Fault::archive(&path, why);
        let stored = body_size(size, pax.size).map_err(wrong)?;
        let link = one(pax.link, link, || linked(header))?;
        let kind = kind(header, &path, link).map_err(wrong)?;
        if kind != Kind::File && stored != 0 {
            return Err(wrong("it is no file and yet has contents"));
        }
        let old = header.as_old();
        let owner = |pax: Option<u64>, field| owner(pax, field).ok_or("its owner is out of range");
        let uid = owner(pax.uid, &old.uid).map_err(wrong)?;
        let gid = owner(pax.gid, &old.gid).map_err(wrong)?;
        let mode = number(&old.mode).ok_or_else(|| wrong("its mode is not a number"))?;
        let seconds = number(&old.mtime).ok_or_else(|| wrong("its time is not a number"))?;
        let (size, pieces) = self.pieces(header, stored)?;
        (self.left, self.padding) = (stored, padding(stored));
        Ok(Member {
            kind,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid,
            gid,
            mtime: pax.mtime.unwrap_or((seconds, 0)),
            size,
            pieces,
            xattrs: pax.xattrs.into_iter().collect(),
            path,
        })
    }

    /// The size of a file and where its stored bytes go. For a sparse file of the old GNU form this
    /// reads the blocks that go on with its map.
    fn pieces(&mut self, header: &Header, stored: u64) -> Result<(u64, Vec<Piece>), Fault> {
        if header.entry_type() != EntryType::GNUSparse {
            let whole = Piece { offset: 0, length: stored };
            return Ok((stored, if stored == 0 { Vec::new() } else { vec![whole] }));
        }
        let gnu = header.as_gnu().ok_or_else(|| bad("a sparse file has no GNU header"))?;
        let mut map = Sparse::default();
        let ended = map.add(&gnu.sparse)?;
        let mut more = gnu.isextended[0] != 0;
        if more && ended {
            return Err(bad("a sparse map goes on after its end"));
        }
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            if fill(&mut self.reader, block.as_mut_bytes())? != BLOCK {
                return Err(bad("it ends within a sparse map"));
            }
            map.add(block.sparse())?;
            more = block.is_extended();
        }
        let size = unsigned(&gnu.realsize).ok_or_else(|| bad("a sparse size is not a number"))?;
        map.finish(size, stored)
    }
}

impl<R: Read> Read for Tape<R> {
    /// Reads what is left of the present member's stored bytes.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.reader.read(&mut buffer[..most])?;
        self.left -= length as u64;
        Ok(length)
    }
}

/// The map of a sparse file, while it is read.
#[derive(Default)]
struct Sparse {
    pieces: Vec<Piece>,
    end: u64,
    stored: u64,
}

impl Sparse {
    /// Takes the pieces of one block; gives back whether they ended with an empty one.
    fn add(&mut self, block: &[tar::GnuSparseHeader]) -> Result<bool, Fault> {
        for piece in block {
            if piece.is_empty() {
                return Ok(true);
            }
            let number = |field| unsigned(field).ok_or_else(|| bad("a sparse map is malformed"));
            let (offset, length) = (number(&piece.offset)?, number(&piece.numbytes)?);
            let end = offset.checked_add(length).ok_or_else(|| bad("a sparse map overflows"))?;
            if offset < self.end || self.pieces.len() >= MOST_PIECES {
                return Err(bad("a sparse map is out of order or too long"));
            }
            self.end = end;
            self.stored = self.stored.saturating_add(length);
            if length > 0 {
                self.pieces.push(Piece { offset, length });
            }
        }
        Ok(false)
    }

    fn finish(self, size: u64, stored: u64) -> Result<(u64, Vec<Piece>), Fault> {
        if self.stored != stored || self.end > size {
            return Err(bad("a sparse map does not agree with its sizes"));
        }
        Ok((size, self.pieces))
    }
}

fn bad(why: &'static str) -> Fault {
    Fault::archive(b"", why)
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Reads until `buffer` is full or the reader at its end.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Fault> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Read(error)),
        }
    }
    Ok(length)
}

/// The sum of a header's bytes, its checksum field being counted as spaces.
fn sum(header: &Header) -> i64 {
    let bytes = header.as_bytes();
    let others = bytes[..148].iter().chain(&bytes[156..]);
    others.map(|b| i64::from(*b)).sum::<i64>() + 8 * i64::from(b' ')
}

fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

/// The size in a header. A size near 2^63 is refused, so that nothing that is added to it overflows.
fn size_of(header: &Header) -> Result<u64, Fault> {
    let size = unsigned(&header.as_old().size).filter(|size| *size < 1 << 62);
    size.ok_or_else(|| bad("a size is not a number"))
}

/// A size in PAX stands in for one that the header cannot hold; anything else is a disagreement.
fn body_size(header: u64, pax: Option<u64>) -> Result<u64, &'static str> {
    match pax {
        None => Ok(header),
        Some(size) if size == header => Ok(size),
        Some(size) if size >= 1 << 62 => Err("its size is not a number"),
        Some(size) if size > MOST_OCTAL && (header == 0 || header == MOST_OCTAL) => Ok(size),
        Some(_) => Err("its header and its extended header disagree about its size"),
    }
}

/// The one text that PAX, GNU and the header agree upon.
fn one(
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
    header: impl FnOnce() -> Vec<u8>,
) -> Result<Vec<u8>, Fault> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(Fault::archive(&pax, "its extended headers disagree about its name"))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(header()),
    }
}

/// The link's name as the header has it: `tar` would give `None` for an empty one.
fn linked(header: &Header) -> Vec<u8> {
    header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default()
}

fn kind(header: &Header, path: &[u8], link: Vec<u8>) -> Result<Kind, &'static str> {
    Ok(match header.entry_type() {
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Link => Kind::HardLink(link),
        EntryType::Char => Kind::Char(device(header)?),
        EntryType::Block => Kind::Block(device(header)?),
        EntryType::Fifo => Kind::Fifo,
        _ => return Err("it is of a type that no layer has"),
    })
}

/// The kernel's limits: 12 bits of major number, 20 of minor.
fn device(header: &Header) -> Result<Device, &'static str> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (ustar.dev_major, ustar.dev_minor),
        (_, Some(gnu)) => (gnu.dev_major, gnu.dev_minor),
        _ => return Err("it is a device without numbers"),
    };
    let part = |field: &[u8], bits: u32| {
        let number = number(field).filter(|number| (0..1 << bits).contains(number));
        number.and_then(|n| u32::try_from(n).ok()).ok_or("its device number is out of range")
    };
    Ok(Device { major: part(&major, 12)?, minor: part(&minor, 20)? })
}

/// The last id is not one: it means "unchanged" to the kernel.
fn owner(pax: Option<u64>, field: &[u8]) -> Option<u32> {
    let id = pax.or_else(|| unsigned(field))?;
    u32::try_from(id).ok().filter(|id| *id != u32::MAX)
}
