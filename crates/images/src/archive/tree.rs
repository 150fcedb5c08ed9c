//! A tree on the disk as a tar archive: what `unpack` undoes.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use sys::beneath::{self, Order, Visit};
use tar::{Builder, EntryType, Header};

use crate::unpack::{whiteout, xattr};

/// The longest link target that a header holds.
const LONGEST_LINK: usize = 100;

/// How a tree is written.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Whether the root is a member too.
    pub root: bool,
    /// Directories that are left out, their contents not.
    pub implied: BTreeSet<Vec<u8>>,
    /// Whether all layers beneath are hidden.
    pub hides_all: bool,
    /// Whether overlayfs's marks are written as an archive has them.
    pub whiteouts: bool,
}

/// Writes all that is beneath `root`, in an order that is always the same.
pub fn write(root: impl AsFd, to: impl Write, manner: &Manner) -> io::Result<()> {
    let mut writer =
        Writer { to: Builder::new(to), manner, linked: HashMap::new(), at: Vec::new() };
    writer.root(root.as_fd())?;
    beneath::walk(&root, Order::Sorted, &mut |visit| writer.visit(visit))?;
    writer.to.into_inner()?.flush()
}

struct Writer<'a, W: Write> {
    to: Builder<W>,
    manner: &'a Manner,
    /// The first name of each file that has several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// The path of the directory that is being listed.
    at: Vec<u8>,
}

impl<W: Write> Writer<'_, W> {
    fn root(&mut self, root: BorrowedFd<'_>) -> io::Result<()> {
        if self.manner.root {
            let stat = rustix::fs::fstat(root)?;
            self.directory(root, b"./", &stat)?;
        }
        if self.manner.hides_all {
            self.empty(whiteout::opaque())?;
        }
        Ok(())
    }

    fn visit(&mut self, visit: Visit<'_>) -> io::Result<()> {
        match visit {
            Visit::Entry { kind: FileType::Directory, .. } => Ok(()),
            Visit::Entry { dir, name, .. } => self.entry(dir, name.to_bytes()),
            Visit::Enter { dir, name } => {
                self.at = self.path(name.to_bytes());
                let path = [self.at.as_slice(), b"/"].concat();
                if !self.manner.implied.contains(&self.at) {
                    let stat = rustix::fs::fstat(dir)?;
                    self.directory(dir, &path, &stat)?;
                }
                if self.manner.whiteouts && whiteout::is_opaque(dir)? {
                    self.empty(&[&path, whiteout::opaque()].concat())?;
                }
                Ok(())
            }
            Visit::Leave { name, .. } => {
                let above = self.at.len() - name.to_bytes().len();
                self.at.truncate(above.saturating_sub(1));
                Ok(())
            }
        }
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        match self.at.is_empty() {
            true => name.to_vec(),
            false => [&self.at, b"/".as_slice(), name].concat(),
        }
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let Some(stat) = beneath::stat(dir, name)? else { return Ok(()) };
        if self.manner.whiteouts && whiteout::is_whiteout(&stat) {
            return self.empty(&self.path(&whiteout::gone(name)));
        }
        let path = self.path(name);
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.member(EntryType::Link, &path, &stat, Some(&first), &[]);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(dir, name, &path, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
                self.member(EntryType::Symlink, &path, &stat, Some(&target), &[])
            }
            FileType::CharacterDevice => self.member(EntryType::Char, &path, &stat, None, &[]),
            FileType::BlockDevice => self.member(EntryType::Block, &path, &stat, None, &[]),
            FileType::Fifo => self.member(EntryType::Fifo, &path, &stat, None, &[]),
            // Sockets are of no use to who gets the archive.
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(beneath::open(dir, name, flags, Mode::empty())?);
        let xattrs = xattr::get(&file)?;
        let header = self.header(EntryType::Regular, path, stat, None, &xattrs)?;
        let size = header.size()?;
        // A file that shrinks meanwhile would shift all that comes after it.
        let contents = file.take(size).chain(io::repeat(0)).take(size);
        self.append(header, path, contents)
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> io::Result<()> {
        let xattrs = xattr::get(dir)?;
        self.member(EntryType::Directory, path, stat, None, &xattrs)
    }

    fn member(
        &mut self,
        kind: EntryType,
        path: &[u8],
        stat: &Stat,
        link: Option<&[u8]>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let header = self.header(kind, path, stat, link, xattrs)?;
        self.append(header, path, io::empty())
    }

    /// An empty file, as marks are.
    fn empty(&mut self, path: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        self.append(header, path, io::empty())
    }

    /// The header of a member; what does not fit into it is written before it.
    fn header(
        &mut self,
        kind: EntryType,
        path: &[u8],
        stat: &Stat,
        link: Option<&[u8]>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        if kind == EntryType::Regular {
            header.set_size(u64::try_from(stat.st_size).unwrap_or(0));
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(rustix::fs::major(stat.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        }
        let mut more = Vec::new();
        match link {
            Some(target) if target.len() > LONGEST_LINK => {
                more.push(("linkpath".to_owned(), target.to_vec()));
            }
            Some(target) => header.set_link_name_literal(target)?,
            None => {}
        }
        if path.len() > LONGEST_LINK {
            more.push(("path".to_owned(), path.to_vec()));
        }
        if stat.st_mtime < 0 || stat.st_mtime_nsec != 0 {
            more.push(("mtime".to_owned(), time(stat).into_bytes()));
        }
        for (name, value) in xattrs {
            if let Ok(name) = std::str::from_utf8(name) {
                more.push((format!("SCHILY.xattr.{name}"), value.clone()));
            }
        }
        let records = more.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.to.append_pax_extensions(records)?;
        Ok(header)
    }

    fn append(&mut self, mut header: Header, path: &[u8], contents: impl Read) -> io::Result<()> {
        if path.len() > LONGEST_LINK {
            // Its whole name was written before it.
            header.as_old_mut().name.copy_from_slice(&path[..LONGEST_LINK]);
            header.set_cksum();
            return self.to.append(&header, contents);
        }
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_cksum();
        self.to.append(&header, contents)
    }
}

/// A time as PAX writes it.
fn time(stat: &Stat) -> String {
    let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
    if seconds >= 0 || nanos == 0 {
        return format!("{seconds}.{nanos:09}");
    }
    let whole = seconds + 1;
    let sign = if whole == 0 { "-" } else { "" };
    format!("{sign}{whole}.{:09}", 1_000_000_000 - nanos)
}
