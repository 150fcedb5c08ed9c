//! Paths beneath a directory descriptor: opening, walking and removing without ever leaving it.
//!
//! Whatever lies in a root filesystem was put there by a stranger, so a path into it is never
//! joined to a path of ours: the kernel is asked (`openat2`) not to leave the descriptor. What the
//! files mean is not known here.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat},
    io::Errno,
    path::Arg,
};

/// A file's device and inode numbers.
type Identity = (u64, u64);

/// No link is followed, nothing above is reached.
const STRICT: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// As in a process that has the directory for its root.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const LISTABLE: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// Opens a directory of ours, to stay beneath. It can be listed and synced.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens `path` beneath `root`. A symbolic link anywhere in it is an error (`ELOOP`), as is a way
/// out (`EXDEV`). `mode` counts only with `OFlags::CREATE`, and the process's mask is applied.
pub fn open(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    resolve(root.as_fd(), path, flags, mode, STRICT)
}

/// Opens `path` as a process would that has `root` for its root directory: symbolic links are
/// followed and cannot lead out.
pub fn open_inside(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    resolve(root.as_fd(), path, flags, mode, INSIDE)
}

/// Opens a directory beneath `root` only to name things in it (`O_PATH`); `""` is `root` itself.
pub fn open_dir(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    open(root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Opens a directory beneath `root` to list or mark it; `""` is `root` itself.
pub fn open_listable(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    open(root, path, LISTABLE, Mode::empty())
}

/// A concurrent rename makes the kernel give up with `EAGAIN` where it cannot be sure; a few tries
/// are enough unless somebody does nothing but rename.
const TRIES: u32 = 64;

fn resolve(
    root: BorrowedFd<'_>,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
    how: ResolveFlags,
) -> io::Result<OwnedFd> {
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Sets the mode of whatever `fd` is open on, `O_PATH` included, for which `fchmod` will not do.
pub fn set_mode(fd: impl AsFd, mode: Mode) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(rustix::fs::chmodat(CWD, link, mode, AtFlags::empty())?)
}

/// What is wanted at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Directory,
    File,
}

/// How many symbolic links a path may lead over: as the kernel has it.
const LINKS: u32 = 40;

/// Opens `path` (`O_PATH`) as [`open_inside`] does, and makes what is missing of it: directories,
/// and at its end an empty file or a directory. A link that leads nowhere leads to what is made.
///
/// # Errors
/// What is there already is not changed, even if it is not what was wanted; else of the kernel.
pub fn place(root: impl AsFd, path: &Path, wanted: Place) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    match open_inside(root, path, OFlags::PATH, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let mut done = PathBuf::new();
    let mut left: Vec<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let last = left.is_empty();
        match step(root, &done, &name, if last { wanted } else { Place::Directory })? {
            None => done.push(name),
            Some(link) => {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP.into());
                }
                if link.has_root() {
                    done = PathBuf::new();
                }
                left.extend(names(&link));
            }
        }
    }
    open_inside(root, &at(&done), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
}

/// The names in a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn at(path: &Path) -> PathBuf {
    Path::new(".").join(path)
}

/// Makes what is missing of one name, or gives the link that is there.
fn step(
    root: BorrowedFd<'_>,
    dir: &Path,
    name: &OsStr,
    wanted: Place,
) -> io::Result<Option<PathBuf>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dir = open_inside(root, &at(dir), flags, Mode::empty())?;
    let made = match wanted {
        Place::Directory => rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)),
        Place::File => {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(&dir, name, FileType::RegularFile, mode, 0)
        }
    };
    match made {
        Ok(()) => Ok(None),
        Err(Errno::EXIST) => match rustix::fs::readlinkat(&dir, name, Vec::new()) {
            Ok(link) => Ok(Some(PathBuf::from(OsString::from_vec(link.into_bytes())))),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// What a name in a directory stands for, links not followed; `None` if there is no such name.
pub fn stat(dir: impl AsFd, name: impl Arg) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// In which order the names of a directory are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the filesystem has them: cheap for any number of names.
    Found,
    /// By their bytes: all the names of one directory are held at a time.
    Sorted,
}

/// One moment of a walk.
#[derive(Debug)]
pub enum Visit<'a> {
    /// A name in the directory `dir`; if it is a directory, what is in it comes later.
    Entry { dir: BorrowedFd<'a>, name: &'a CStr, kind: FileType },
    /// The directory `name` was entered and is now `dir`.
    Enter { dir: BorrowedFd<'a>, name: &'a CStr },
    /// All in the directory `name` of `dir` was visited.
    Leave { dir: BorrowedFd<'a>, name: &'a CStr },
}

/// A directory on the way from the root of a walk to where it is.
struct Frame {
    name: CString,
    parent: Identity,
    pending: Vec<CString>,
}

/// Walks everything beneath `root`, following no link and crossing no mount point. It holds two
/// descriptors at most however deep the tree is: to go up it opens `..` and makes sure that it is
/// where it came from, so a tree that is rearranged meanwhile ends the walk with `ESTALE`. A
/// directory that vanishes before it is entered is passed over.
pub fn walk(
    root: impl AsFd,
    order: Order,
    visit: &mut dyn FnMut(Visit<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut here = open_listable(&root, b"")?;
    let mut pending = list(&here, order, visit)?;
    let mut above: Vec<Frame> = Vec::new();
    loop {
        if let Some(name) = pending.pop() {
            let Some(child) = descend(&here, &name)? else { continue };
            visit(Visit::Enter { dir: child.as_fd(), name: &name })?;
            above.push(Frame { name, parent: identity(&here)?, pending });
            here = child;
            pending = list(&here, order, visit)?;
        } else if let Some(frame) = above.pop() {
            here = ascend(&here, frame.parent)?;
            pending = frame.pending;
            visit(Visit::Leave { dir: here.as_fd(), name: &frame.name })?;
        } else {
            return Ok(());
        }
    }
}

fn identity(fd: impl AsFd) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn descend(here: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let how = STRICT | ResolveFlags::NO_XDEV;
    match resolve(here.as_fd(), name, LISTABLE, Mode::empty(), how) {
        Ok(child) => Ok(Some(child)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            _ => Err(error),
        },
    }
}

fn ascend(here: &OwnedFd, expected: Identity) -> io::Result<OwnedFd> {
    let parent = rustix::fs::openat(here, c"..", LISTABLE | OFlags::CLOEXEC, Mode::empty())?;
    if identity(&parent)? == expected { Ok(parent) } else { Err(Errno::STALE.into()) }
}

/// Visits the names in `dir` and gives back those of its directories, the first one last.
fn list(
    dir: &OwnedFd,
    order: Order,
    visit: &mut dyn FnMut(Visit<'_>) -> io::Result<()>,
) -> io::Result<Vec<CString>> {
    let mut pending = Vec::new();
    let mut see = |name: &CStr, kind: FileType| {
        visit(Visit::Entry { dir: dir.as_fd(), name, kind })?;
        if kind == FileType::Directory {
            pending.push(name.to_owned());
        }
        io::Result::Ok(())
    };
    match order {
        Order::Found => each_name(dir, &mut see)?,
        Order::Sorted => {
            let mut names = Vec::new();
            each_name(dir, &mut |name, kind| {
                names.push((name.to_owned(), kind));
                Ok(())
            })?;
            names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            names.iter().try_for_each(|(name, kind)| see(name, *kind))?;
        }
    }
    pending.reverse();
    Ok(pending)
}

fn each_name(
    dir: &OwnedFd,
    see: &mut dyn FnMut(&CStr, FileType) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut names = RawDir::new(dir, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match entry.file_type() {
            FileType::Unknown => {
                if let Some(stat) = stat(dir, name)? {
                    see(name, FileType::from_raw_mode(stat.st_mode))?;
                }
            }
            kind => see(name, kind)?,
        }
    }
    Ok(())
}

/// How often a directory is emptied anew when something is put into it meanwhile.
const EMPTYINGS: u32 = 8;

/// Removes `name` from `dir`, with all that is in it. No such name is as good as removed. A mount
/// point inside ends it with `EBUSY`: nothing on another filesystem is ever removed.
pub fn remove(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    for _ in 0..EMPTYINGS {
        empty(dir, name)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

fn empty(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let top = match resolve(dir, name, LISTABLE, Mode::empty(), STRICT | ResolveFlags::NO_XDEV) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    walk(&top, Order::Found, &mut |visit| {
        let gone = match visit {
            Visit::Entry { kind: FileType::Directory, .. } | Visit::Enter { .. } => Ok(()),
            Visit::Entry { dir, name, .. } => rustix::fs::unlinkat(dir, name, AtFlags::empty()),
            Visit::Leave { dir, name } => rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR),
        };
        match gone {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn refused(result: io::Result<OwnedFd>) -> Errno {
        Errno::from_io_error(&result.unwrap_err()).unwrap()
    }

    #[test]
    fn a_path_neither_leaves_the_directory_nor_follows_a_link() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("root/real")).unwrap();
        fs::write(top.path().join("secret"), "s").unwrap();
        symlink("real", top.path().join("root/link")).unwrap();
        symlink("/etc", top.path().join("root/abs")).unwrap();
        let root = open_root(&top.path().join("root")).unwrap();
        assert!(open_dir(&root, b"real").is_ok());
        assert_eq!(refused(open_dir(&root, b"link")), Errno::LOOP);
        assert_eq!(refused(open_dir(&root, b"../root")), Errno::XDEV);
        assert_eq!(refused(open_dir(&root, b"/etc")), Errno::XDEV);
        let inside = |path: &str| open_inside(&root, path, OFlags::PATH, Mode::empty());
        assert!(inside("link").is_ok());
        assert_eq!(refused(inside("abs/passwd")), Errno::NOENT);
        assert!(inside("../../..").is_ok(), "dots stop at the root");
        assert_eq!(refused(inside("../secret")), Errno::NOENT);
    }

    #[test]
    fn a_place_is_found_or_made_and_never_outside() {
        let top = tempfile::tempdir().unwrap();
        let inside = |path: &str| top.path().join("root").join(path);
        fs::create_dir_all(inside("run")).unwrap();
        fs::create_dir_all(inside("etc")).unwrap();
        symlink("../run/stub/resolv.conf", inside("etc/resolv.conf")).unwrap();
        symlink("/run", inside("var")).unwrap();
        symlink("../../../..", inside("up")).unwrap();
        symlink("loop", inside("loop")).unwrap();
        let root = open_root(&inside("")).unwrap();
        for (path, wanted, made) in [
            ("/etc/resolv.conf", Place::File, "run/stub/resolv.conf"),
            ("/var/lib/x", Place::Directory, "run/lib/x"),
            ("up/etc/../new/file", Place::File, "new/file"),
            ("/new/file", Place::Directory, "new/file"),
        ] {
            let fd = place(&root, Path::new(path), wanted).unwrap();
            let (got, expected) = (rustix::fs::fstat(&fd).unwrap(), fs::metadata(inside(made)));
            use std::os::unix::fs::MetadataExt;
            assert_eq!(got.st_ino, expected.unwrap().ino(), "{path}");
        }
        assert!(inside("new/file").is_file() && inside("run/lib/x").is_dir());
        for (path, errno) in [("loop/x", Errno::LOOP), ("new/file/x", Errno::NOTDIR)] {
            assert_eq!(refused(place(&root, Path::new(path), Place::File)), errno, "{path}");
        }
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1, "nothing was made outside");
    }

    #[test]
    fn removing_follows_no_link_and_is_content_with_nothing() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("outside")).unwrap();
        fs::write(top.path().join("outside/kept"), "k").unwrap();
        fs::create_dir_all(top.path().join("gone/a/b")).unwrap();
        fs::write(top.path().join("gone/a/file"), "f").unwrap();
        symlink("../../outside", top.path().join("gone/a/out")).unwrap();
        let dir = open_root(top.path()).unwrap();
        remove(&dir, b"gone").unwrap();
        remove(&dir, b"gone").unwrap();
        assert!(!top.path().join("gone").exists());
        assert!(top.path().join("outside/kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_with_few_descriptors() {
        let top = tempfile::tempdir().unwrap();
        let mut here = open_root(top.path()).unwrap();
        for _ in 0..6000 {
            rustix::fs::mkdirat(&here, c"deep", Mode::RWXU).unwrap();
            here = open_dir(&here, b"deep").unwrap();
        }
        remove(open_root(top.path()).unwrap(), b"deep").unwrap();
        assert!(!top.path().join("deep").exists());
    }

    #[test]
    fn a_sorted_walk_sees_every_name_once_and_in_order() {
        let top = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::create_dir_all(top.path().join(name)).unwrap();
            fs::write(top.path().join(name).join("leaf"), "").unwrap();
        }
        let mut seen = Vec::new();
        let root = open_root(top.path()).unwrap();
        walk(&root, Order::Sorted, &mut |visit| {
            if let Visit::Leave { name, .. } | Visit::Entry { name, .. } = visit {
                seen.push(name.to_str().unwrap().to_owned());
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a", "b", "c", "leaf", "a", "leaf", "b", "leaf", "c"]);
    }
}
