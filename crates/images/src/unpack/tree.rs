//! The tree that an archive is unpacked into: one method for each thing that a member can be.
//! All is done beneath one descriptor, from the name's own directory, which is opened anew for each
//! member: a directory that was remembered could have been replaced by a link since (CVE-2025-47290).

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, makedev,
    },
    io::Errno,
};
use sys::beneath;

use super::{
    Limits,
    fault::Fault,
    path::Within,
    tape::{Device, Kind, Member, Piece},
    whiteout, xattr,
};

/// How much is copied at a time.
const CHUNK: usize = 128 * 1024;
/// The most bytes of paths that are remembered until the end. Directories beyond them, of which
/// there must be a million, get the time of their unpacking.
const REMEMBERED: usize = 128 << 20;
/// What remembering a path takes beside its bytes.
const OVERHEAD: usize = 96;
/// How many directories that only had to be there are told of; see [`Tree::implied`].
const MOST_IMPLIED: usize = 16 * 1024;
/// How many bytes are written between two looks at what is free.
const LOOK: u64 = 32 << 20;
/// What a file takes beside its bytes, and what its bytes are rounded up to.
const PAGE: u64 = 4096;

/// A tree that is being unpacked.
pub struct Tree<'a> {
    root: &'a OwnedFd,
    limits: &'a Limits,
    chunk: Vec<u8>,
    /// The times of directories, set when nothing is put into them any more.
    times: Vec<(Within, Timestamps)>,
    implied: BTreeSet<Within>,
    remembered: usize,
    /// Names made, and bytes of files as they are counted against the limits.
    pub names: u64,
    pub bytes: u64,
    /// What it takes on the disk, roughly.
    pub disk: u64,
    /// What `disk` was when what is free was last looked at.
    looked: u64,
}

impl<'a> Tree<'a> {
    pub fn new(root: &'a OwnedFd, limits: &'a Limits) -> Tree<'a> {
        Tree {
            root,
            limits,
            chunk: vec![0; CHUNK],
            times: Vec::new(),
            implied: BTreeSet::new(),
            remembered: 0,
            names: 0,
            bytes: 0,
            disk: 0,
            looked: 0,
        }
    }

    /// Puts a member where it belongs; `contents` are the stored bytes of a file.
    pub fn put(
        &mut self,
        path: &Within,
        member: &Member,
        contents: &mut impl Read,
    ) -> Result<(), Fault> {
        self.count(member.size)?;
        match &member.kind {
            Kind::Directory => self.directory(path, member),
            _ if path.is_root() => Err(Fault::archive(b"/", "the root is not a directory")),
            Kind::File => self.file(path, member, contents),
            Kind::Symlink(target) => self.symlink(path, member, target),
            Kind::HardLink(target) => self.hard_link(path, target),
            Kind::Char(device) => self.node(path, member, FileType::CharacterDevice, *device),
            Kind::Block(device) => self.node(path, member, FileType::BlockDevice, *device),
            Kind::Fifo => self.node(path, member, FileType::Fifo, Device { major: 0, minor: 0 }),
        }
    }

    /// Counts what is to be made before it is made.
    fn count(&mut self, bytes: u64) -> Result<(), Fault> {
        let Limits { names, bytes: most, .. } = *self.limits;
        self.names += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.disk += bytes.next_multiple_of(PAGE).saturating_add(PAGE);
        if self.names > names {
            return Err(Fault::TooMuch { what: "files", limit: names });
        }
        if self.bytes > most {
            return Err(Fault::TooMuch { what: "bytes in files", limit: most });
        }
        self.look_at_the_disk()
    }

    /// Stops before the disk is so full that nothing else on it can work.
    fn look_at_the_disk(&mut self) -> Result<(), Fault> {
        if self.limits.reserve == 0 || self.disk < self.looked.saturating_add(LOOK) {
            return Ok(());
        }
        self.looked = self.disk;
        let doing = "keeping some of the disk free, beside";
        let stat = rustix::fs::fstatvfs(self.root).map_err(|errno| Fault::at(doing, b"", errno))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.limits.reserve { Err(Fault::at(doing, b"", Errno::NOSPC)) } else { Ok(()) }
    }

    fn directory(&mut self, path: &Within, member: &Member) -> Result<(), Fault> {
        let named = path.as_bytes();
        let dir = if path.is_root() {
            beneath::open_listable(self.root, b"")
        } else {
            let parent = self.parent(path)?;
            if !self.make_way(&parent, path, FileType::Directory)? {
                self.make_directory(&parent, path)?;
            }
            beneath::open_listable(&parent, path.name())
        };
        let dir = dir.map_err(|error| Fault::at("opening", named, error))?;
        owned(&dir, named, member)?;
        moded(&dir, named, member.mode)?;
        xattr::set(&dir, named, &member.xattrs)?;
        self.implied.remove(path);
        if self.remember(path) {
            self.times.push((path.clone(), times(member)));
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Within,
        member: &Member,
        contents: &mut impl Read,
    ) -> Result<(), Fault> {
        let named = path.as_bytes();
        let parent = self.parent(path)?;
        self.make_way(&parent, path, FileType::RegularFile)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&parent, path.name(), flags | OFlags::CLOEXEC, mode)
            .map_err(|errno| Fault::at("making", named, errno))?;
        let mut file = File::from(file);
        for piece in &member.pieces {
            self.copy(contents, &mut file, *piece, named)?;
        }
        let end = member.pieces.last().map_or(0, |piece| piece.offset + piece.length);
        if end < member.size {
            file.set_len(member.size).map_err(|error| Fault::at("sizing", named, error))?;
        }
        owned(&file, named, member)?;
        moded(&file, named, member.mode)?;
        xattr::set(&file, named, &member.xattrs)?;
        rustix::fs::futimens(&file, &times(member))
            .map_err(|errno| Fault::at("setting the times of", named, errno))
    }

    fn copy(
        &mut self,
        from: &mut impl Read,
        to: &mut File,
        piece: Piece,
        named: &[u8],
    ) -> Result<(), Fault> {
        let wrote = |error| Fault::at("writing", named, error);
        if piece.offset != 0 {
            to.seek(SeekFrom::Start(piece.offset)).map_err(wrote)?;
        }
        let mut left = piece.length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let length = from.read(&mut self.chunk[..most]).map_err(Fault::Read)?;
            if length == 0 {
                return Err(Fault::archive(named, "the archive ends within it"));
            }
            to.write_all(&self.chunk[..length]).map_err(wrote)?;
            left -= length as u64;
        }
        self.look_at_the_disk()
    }

    fn symlink(&mut self, path: &Within, member: &Member, target: &[u8]) -> Result<(), Fault> {
        let named = path.as_bytes();
        if target.is_empty() || target.contains(&0) {
            return Err(Fault::archive(named, "it is a link to nothing"));
        }
        let parent = self.parent(path)?;
        self.make_way(&parent, path, FileType::Symlink)?;
        rustix::fs::symlinkat(target, &parent, path.name())
            .map_err(|errno| Fault::at("making the link", named, errno))?;
        self.finish_name(&parent, path, member)
    }

    /// Links to a file of this layer. The link of a link is the link itself, never what it points
    /// to; and no metadata is set, which would be the target's (CVE-2021-32760).
    fn hard_link(&mut self, path: &Within, target: &[u8]) -> Result<(), Fault> {
        let named = path.as_bytes();
        let target = Within::parse(target)
            .map_err(|why| Fault::archive(named, format!("as for its link's target, {why}")))?;
        if target == *path {
            return Err(Fault::archive(named, "it is a hard link to itself"));
        }
        let from = match beneath::open_dir(self.root, target.parent().as_bytes()) {
            Ok(from) => from,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(not_here(named));
            }
            Err(error) => return Err(Fault::at("opening the target of", named, error)),
        };
        match stat(&from, &target)? {
            None => return Err(not_here(named)),
            Some(found) if whiteout::is_whiteout(&found) => return Err(not_here(named)),
            Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                return Err(Fault::archive(named, "it is a hard link to a directory"));
            }
            Some(_) => {}
        }
        let parent = self.parent(path)?;
        self.make_way(&parent, path, FileType::RegularFile)?;
        rustix::fs::linkat(&from, target.name(), &parent, path.name(), AtFlags::empty()).map_err(
            |errno| match errno {
                // Making way for the link took its target away.
                Errno::NOENT => not_here(named),
                errno => Fault::at("linking", named, errno),
            },
        )
    }

    fn node(
        &mut self,
        path: &Within,
        member: &Member,
        kind: FileType,
        device: Device,
    ) -> Result<(), Fault> {
        let named = path.as_bytes();
        let number = makedev(device.major, device.minor);
        if kind == FileType::CharacterDevice && number == 0 {
            return Err(Fault::archive(
                named,
                "it is device 0:0, which would hide what is beneath",
            ));
        }
        let parent = self.parent(path)?;
        self.make_way(&parent, path, kind)?;
        rustix::fs::mknodat(&parent, path.name(), kind, Mode::RUSR | Mode::WUSR, number)
            .map_err(|errno| Fault::at("making the node", named, errno))?;
        self.finish_name(&parent, path, member)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        beneath::open(&parent, path.name(), flags, Mode::empty())
            .and_then(|node| beneath::set_mode(node, Mode::from_raw_mode(member.mode)))
            .map_err(|error| Fault::at("setting the mode of", named, error))
    }

    /// Owner and times of what cannot be opened, by its name.
    fn finish_name(&self, parent: &OwnedFd, path: &Within, member: &Member) -> Result<(), Fault> {
        let (name, nofollow) = (path.name(), AtFlags::SYMLINK_NOFOLLOW);
        let (uid, gid) = ids(member);
        rustix::fs::chownat(parent, name, uid, gid, nofollow)
            .and_then(|()| rustix::fs::utimensat(parent, name, &times(member), nofollow))
            .map_err(|errno| Fault::at("setting the owner and times of", path.as_bytes(), errno))
    }

    /// Makes the name beneath gone. What this layer itself has under that name stays: whatever order
    /// an archive has, its whiteouts are about the layers beneath.
    pub fn whiteout(&mut self, path: &Within) -> Result<(), Fault> {
        self.count(0)?;
        let parent = self.parent(path)?;
        match stat(&parent, path)? {
            None => whiteout::make(&parent, path.name())
                .map_err(|error| Fault::at("making the whiteout of", path.as_bytes(), error)),
            Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                hide_beneath(&parent, path)
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes a directory hide what is beneath it.
    pub fn opaque(&mut self, path: &Within) -> Result<(), Fault> {
        self.count(0)?;
        drop(self.directory_at(path)?);
        hide_beneath(&self.parent(path)?, path)
    }

    /// Takes away what stands where a member goes, unless both are directories; gives back whether
    /// there is one now. A directory in the place of a whiteout hides what is beneath, as that did.
    fn make_way(&mut self, parent: &OwnedFd, path: &Within, kind: FileType) -> Result<bool, Fault> {
        let Some(found) = stat(parent, path)? else { return Ok(false) };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_directory && kind == FileType::Directory {
            return Ok(true);
        }
        beneath::remove(parent, path.name())
            .map_err(|error| Fault::at("replacing", path.as_bytes(), error))?;
        let opaque = whiteout::is_whiteout(&found) && kind == FileType::Directory;
        if opaque {
            self.make_directory(parent, path)?;
            hide_beneath(parent, path)?;
        }
        Ok(opaque)
    }

    fn make_directory(&self, parent: &OwnedFd, path: &Within) -> Result<(), Fault> {
        rustix::fs::mkdirat(parent, path.name(), Mode::RWXU)
            .map_err(|errno| Fault::at("making the directory", path.as_bytes(), errno))
    }

    fn parent(&mut self, path: &Within) -> Result<OwnedFd, Fault> {
        self.directory_at(&path.parent())
    }

    /// Opens a directory, making those on the way that are not there.
    fn directory_at(&mut self, path: &Within) -> Result<OwnedFd, Fault> {
        if let Ok(dir) = beneath::open_dir(self.root, path.as_bytes()) {
            return Ok(dir);
        }
        let mut here = beneath::open_dir(self.root, b"")
            .map_err(|error| Fault::at("opening", path.as_bytes(), error))?;
        let mut at = Within::default();
        for name in path.names() {
            at = at.join(name);
            here = self.enter(here, &at)?;
        }
        Ok(here)
    }

    /// Goes one name down, through a link too if what it leads to is a directory of this layer.
    fn enter(&mut self, here: OwnedFd, at: &Within) -> Result<OwnedFd, Fault> {
        let failed = |error| Fault::at("opening", at.as_bytes(), error);
        let found = stat(&here, at)?;
        match found.map(|found| (FileType::from_raw_mode(found.st_mode), found)) {
            Some((FileType::Directory, _)) => {}
            None => {
                self.count(0)?;
                self.make_directory(&here, at)?;
                moded(
                    beneath::open_listable(&here, at.name()).map_err(failed)?,
                    at.as_bytes(),
                    0o755,
                )?;
                self.imply(at);
            }
            Some((_, found)) if whiteout::is_whiteout(&found) => {
                self.make_way(&here, at, FileType::Directory)?;
                moded(
                    beneath::open_listable(&here, at.name()).map_err(failed)?,
                    at.as_bytes(),
                    0o755,
                )?;
            }
            Some((FileType::Symlink, _)) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                return beneath::open_inside(self.root, at.as_bytes(), flags, Mode::empty())
                    .map_err(|_| {
                        Fault::archive(at.as_bytes(), "it is a link to no directory of the layer")
                    });
            }
            Some(_) => return Err(failed(Errno::NOTDIR.into())),
        }
        beneath::open_dir(&here, at.name()).map_err(failed)
    }

    /// Notes a directory that the archive does not have but needs.
    fn imply(&mut self, at: &Within) {
        if self.implied.len() < MOST_IMPLIED && self.remember(at) {
            self.implied.insert(at.clone());
        }
    }

    /// Whether there is room to remember one more path.
    fn remember(&mut self, path: &Within) -> bool {
        self.remembered += path.as_bytes().len() + OVERHEAD;
        self.remembered <= REMEMBERED
    }

    /// Sets the times of directories, the last thing to be done, and gives back those that were
    /// made only because something is in them: the layers beneath know their attributes better.
    pub fn finish(self) -> Result<Vec<Within>, Fault> {
        for (path, times) in &self.times {
            let set = beneath::open_listable(self.root, path.as_bytes())
                .and_then(|dir| Ok(rustix::fs::futimens(&dir, times)?));
            match set {
                Ok(()) => {}
                // It was replaced by something else since.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    return Err(Fault::at("setting the times of", path.as_bytes(), error));
                }
            }
        }
        Ok(self.implied.into_iter().collect())
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV))
}

fn not_here(named: &[u8]) -> Fault {
    Fault::archive(named, "it is a hard link to a file that its layer does not have")
}

fn hide_beneath(parent: &OwnedFd, path: &Within) -> Result<(), Fault> {
    beneath::open_listable(parent, path.name())
        .and_then(whiteout::make_opaque)
        .map_err(|error| Fault::at("making opaque", path.as_bytes(), error))
}

fn moded(file: impl AsFd, named: &[u8], mode: u32) -> Result<(), Fault> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
        .map_err(|errno| Fault::at("setting the mode of", named, errno))
}

fn stat(dir: &OwnedFd, path: &Within) -> Result<Option<Stat>, Fault> {
    beneath::stat(dir, path.name()).map_err(|error| Fault::at("looking at", path.as_bytes(), error))
}

fn ids(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))
}

fn owned(file: impl AsFd, named: &[u8], member: &Member) -> Result<(), Fault> {
    let (uid, gid) = ids(member);
    rustix::fs::fchown(file, uid, gid)
        .map_err(|errno| Fault::at("setting the owner of", named, errno))
}

/// A member's time as its time of modification; the time of access is left to the kernel.
fn times(member: &Member) -> Timestamps {
    let (tv_sec, tv_nsec) = member.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec },
    }
}
