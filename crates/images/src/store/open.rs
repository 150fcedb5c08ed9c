//! Opening a store: what is on the disk is read, what was half done is undone, what cannot be read
//! is set aside and told of. Nothing is touched if any of it is of a newer program.

use std::{
    ffi::CString,
    fs::{DirBuilder, File, Permissions},
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

use names::Digest;
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};
use serde::de::DeserializeOwned;
use sys::beneath;

use super::{
    Container, Dirs, Index, Layer, Store, containers, images, layers,
    record::{self, Unreadable},
};
use crate::{
    error::{At, Error},
    image::{Image, Record},
    usage::Measures,
};

const SUBDIRECTORIES: [&str; 5] = ["layers", "images", "containers", "tmp", "quarantine"];

/// What was found on the disk.
#[derive(Default)]
struct Found {
    index: Index,
    /// Of `layers`, `images`: the name, and why it cannot be used.
    damaged: Vec<(&'static str, String, String)>,
    /// Containers without a record: their making had not got so far.
    unborn: Vec<String>,
    turn: u64,
}

impl Store {
    /// Opens the store beneath `root`, making it if there is none.
    pub fn open(root: &Path, keep: Vec<String>) -> Result<Arc<Store>, Error> {
        make_directories(root)?;
        let lock = lock(root)?;
        let open =
            |name: &str| beneath::open_root(&root.join(name)).at("opening", &root.join(name));
        let dirs = Dirs {
            layers: open("layers")?,
            images: open("images")?,
            containers: open("containers")?,
            tmp: open("tmp")?,
            quarantine: open("quarantine")?,
        };
        let found = look(root, &dirs, &keep)?;
        let leftovers = names(&dirs.tmp).at("listing", &root.join("tmp"))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let store = Arc::new(Store {
            root: root.to_owned(),
            dirs,
            index: RwLock::new(found.index),
            disk: Mutex::new(()),
            run: format!("{:x}", since.as_nanos()),
            spare: AtomicU64::new(0),
            turn: AtomicU64::new(found.turn + 1),
            measures: Measures::default(),
            keep,
            _lock: lock,
        });
        store.tidy(found.damaged, &found.unborn, leftovers)?;
        Ok(store)
    }

    fn tidy(
        self: &Arc<Store>,
        damaged: Vec<(&'static str, String, String)>,
        unborn: &[String],
        mut leftovers: Vec<String>,
    ) -> Result<(), Error> {
        // The layers of a damaged image are kept for whoever pulls it anew.
        let complete = damaged.iter().all(|(dir, ..)| *dir != "images");
        for (dir, name, why) in damaged {
            self.quarantine(dir, &name, &why)?;
        }
        for name in unborn {
            leftovers.extend(self.set_aside(&self.dirs.containers, name)?);
        }
        if complete {
            leftovers.extend(self.set_unused_aside()?);
        }
        self.remove_in_the_background(leftovers);
        Ok(())
    }

    /// A start does not wait for the removal of what may be gigabytes.
    fn remove_in_the_background(self: &Arc<Store>, leftovers: Vec<String>) {
        if leftovers.is_empty() {
            return;
        }
        let store = Arc::clone(self);
        std::thread::spawn(move || {
            for name in leftovers {
                if let Err(error) = store.discard(&name) {
                    tracing::warn!(%error, name, "cannot remove a leftover");
                }
            }
        });
    }
}

/// Only root may pass through: setuid files of images lie beneath (CVE-2021-41103).
fn make_directories(root: &Path) -> Result<(), Error> {
    let every = SUBDIRECTORIES.iter().map(|name| root.join(name));
    for path in std::iter::once(root.to_owned()).chain(every) {
        DirBuilder::new().recursive(true).mode(0o700).create(&path).at("making", &path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).at("closing", &path)?;
    }
    // What is synced in one of them is on the disk only if its folder is.
    for path in [Some(root), root.parent()].into_iter().flatten() {
        File::open(path).and_then(|folder| folder.sync_all()).at("syncing", path)?;
    }
    Ok(())
}

fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(rustix::fs::CWD, &path, flags, Mode::RUSR | Mode::WUSR)
        .at("opening", &path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(Error::InUse(root.to_owned())),
        Err(errno) => return Err(Error::io("locking", &path, errno)),
    }
    let mut file = File::from(file);
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).at("writing", &path)?;
    Ok(file)
}

pub(super) fn names(dir: &OwnedFd) -> std::io::Result<Vec<String>> {
    let mut all = Vec::new();
    let mut names = rustix::fs::Dir::read_from(dir)?;
    while let Some(entry) = names.read() {
        let name: CString = entry?.file_name().to_owned();
        match name.into_string() {
            Ok(name) if name != "." && name != ".." => all.push(name),
            _ => {}
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Reads everything and changes nothing.
fn look(root: &Path, dirs: &Dirs, keep: &[String]) -> Result<Found, Error> {
    let mut found = Found::default();
    look_at_layers(root, &dirs.layers, &mut found)?;
    look_at_images(root, &dirs.images, keep, &mut found)?;
    look_at_containers(root, &dirs.containers, &mut found)?;
    Ok(found)
}

/// A record, or why it is to be set aside. `None` if there is none.
fn read<T: DeserializeOwned>(
    dir: impl AsFd,
    name: &str,
    path: PathBuf,
) -> Result<Option<Result<T, String>>, Error> {
    match record::read(dir, name) {
        Ok(Ok(record)) => Ok(Some(Ok(record))),
        Ok(Err(Unreadable::Damaged(why))) => Ok(Some(Err(why))),
        Ok(Err(Unreadable::Newer(version))) => Err(Error::Newer { file: path, version }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if is_damage(&error) => Ok(Some(Err(format!("it cannot be read: {error}")))),
        Err(error) => Err(Error::io("reading", &path, error)),
    }
}

/// Whether it is the fault of what is there, so that another try would end alike: something else than a
/// record, or one that the filesystem has lost. One such costs an image, and not the start.
fn is_damage(error: &std::io::Error) -> bool {
    let errnos = [
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::LOOP,
        Errno::NXIO,
        Errno::IO,
        Errno::UCLEAN,
        Errno::BADMSG,
    ];
    Errno::from_io_error(error).is_some_and(|errno| errnos.contains(&errno))
}

fn look_at_layers(root: &Path, dir: &OwnedFd, found: &mut Found) -> Result<(), Error> {
    let path = root.join("layers");
    for name in names(dir).at("listing", &path)? {
        let file = format!("{name}/{}", layers::RECORD);
        let layer: Result<Layer, String> =
            read(dir, &file, path.join(&file))?.unwrap_or_else(|| Err("it has no record".into()));
        match layer {
            Ok(layer) if layer.diff.hex() == name => {
                found.index.layers.insert(layer.diff.clone(), Arc::new(layer));
            }
            Ok(_) => found.damaged.push(("layers", name, "its record is another's".into())),
            Err(why) => found.damaged.push(("layers", name, why)),
        }
    }
    Ok(())
}

fn look_at_images(
    root: &Path,
    dir: &OwnedFd,
    keep: &[String],
    found: &mut Found,
) -> Result<(), Error> {
    let path = root.join("images");
    let mut records = Vec::new();
    for name in names(dir).at("listing", &path)? {
        let record: Result<Record, String> =
            read(dir, &name, path.join(&name))?.unwrap_or_else(|| Err("it is gone".into()));
        match record.and_then(|record| usable(record, &name, &found.index)) {
            Ok(record) => records.push(record),
            Err(why) => found.damaged.push(("images", name, why)),
        }
    }
    records.sort_by_key(|record| record.turn);
    found.turn = records.last().map_or(0, |record| record.turn);
    let mut later = std::collections::HashSet::new();
    for mut record in records.into_iter().rev() {
        record.tags.retain(|tag| later.insert(tag.clone()));
        let id = record.id.clone();
        if let Ok(image) = Image::of(record, keep) {
            found.index.images.insert(id, Arc::new(image));
        }
    }
    Ok(())
}

fn usable(record: Record, name: &str, index: &Index) -> Result<Record, String> {
    if images::file(&record.id) != name {
        return Err("its record is another's".into());
    }
    let gone = |diff: &&Digest| !index.layers.contains_key(*diff);
    if let Some(diff) = record.layers.iter().chain(&record.amend).find(gone) {
        return Err(format!("its layer {diff} is missing"));
    }
    Image::of(record.clone(), &[]).map_err(|why| format!("its config: {why}"))?;
    Ok(record)
}

fn look_at_containers(root: &Path, dir: &OwnedFd, found: &mut Found) -> Result<(), Error> {
    let path = root.join("containers");
    for name in names(dir).at("listing", &path)? {
        let Ok(id) = name.parse() else { continue };
        let file = format!("{name}/{}", containers::RECORD);
        let container: Option<Result<Container, String>> = read(dir, &file, path.join(&file))?;
        match container {
            None => found.unborn.push(name),
            Some(Ok(container)) => {
                found.index.containers.insert(id, Arc::new(container));
            }
            Some(Err(_)) => {
                found.index.unclear.insert(id);
            }
        }
    }
    Ok(())
}
