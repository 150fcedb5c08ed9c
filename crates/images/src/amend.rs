//! Attributes of directories that a layer needs but does not have.
//!
//! An archive may hold `tmp/file` and nothing about `tmp`. Unpacked by itself it gets a `tmp` of the
//! usual mode, and overlayfs shows the attributes of the uppermost directory: a `tmp` of mode 1777
//! beneath would be lost. So an image with such directories gets one more layer of ours on top,
//! which holds nothing but them, with the attributes that the layers beneath give them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    os::fd::OwnedFd,
    sync::Arc,
};

use names::Digest;
use rustix::{
    fs::{FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid},
    io::Errno,
};
use sha2::{Digest as _, Sha256};
use sys::beneath;

use crate::{
    error::{At, Error},
    store::{FILES, Hold, Layer, Store},
    unpack::{Within, whiteout},
};

/// How many directories of layers are looked at for one image. What an honest image needs is a
/// hundredth of that; what a hostile one loses is its own modes.
const MOST_LOOKS: u32 = 200_000;
/// What a directory is like if nobody says.
const USUAL: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, seconds: 0, nanos: 0 };

#[derive(Clone, Copy, Debug)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanos: i64,
}

impl Attributes {
    fn of(stat: &Stat) -> Attributes {
        Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            seconds: stat.st_mtime,
            nanos: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }
    }

    fn is_usual(&self) -> bool {
        (self.mode, self.uid, self.gid) == (USUAL.mode, USUAL.uid, USUAL.gid)
    }
}

/// A layer that is being looked at.
struct Open {
    root: OwnedFd,
    implied: HashSet<String>,
}

/// What a layer has under a path.
enum Look {
    Nothing,
    /// Nothing, and what is beneath does not show either.
    Hidden,
    Directory {
        stat: Box<Stat>,
        implied: bool,
        opaque: bool,
    },
}

/// Makes the layer that amends these, if they need one, and holds it. Blocks.
pub(crate) fn make(store: &Arc<Store>, diffs: &[Digest]) -> Result<Option<(Digest, Hold)>, Error> {
    let wanted = implied(store, diffs);
    if wanted.is_empty() {
        return Ok(None);
    }
    let layers = open(store, diffs)?;
    let amended = amended(&layers, &wanted).at("looking at layers of", store.root())?;
    if amended.is_empty() {
        return Ok(None);
    }
    let diff = name(diffs);
    let (hold, here) = store.hold(&diff);
    if !here {
        write(store, &diff, &amended)?;
    }
    Ok(Some((diff, hold)))
}

/// The name of the layer that amends these: no archive has that digest.
fn name(diffs: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"podbay: the attributes of directories in");
    diffs.iter().for_each(|diff| hash.update(diff.as_str()));
    Digest::from_sha256(hash.finalize().into())
}

/// All directories that a layer with others beneath it implies.
fn implied(store: &Store, diffs: &[Digest]) -> BTreeSet<String> {
    let index = store.index();
    let layers = diffs.iter().skip(1).filter_map(|diff| index.layers.get(diff));
    layers.flat_map(|layer| layer.implied.iter().cloned()).collect()
}

/// The layers from the top down.
fn open(store: &Store, diffs: &[Digest]) -> Result<Vec<Open>, Error> {
    let mut layers = Vec::new();
    for layer in crate::rootfs::stack(store, diffs)? {
        let name = format!("{}/{FILES}", layer.diff.hex());
        let root = beneath::open_listable(&store.dirs.layers, name.as_bytes());
        let root = root.at("opening", &store.root().join("layers").join(&name))?;
        layers.push(Open { root, implied: layer.implied.iter().cloned().collect() });
    }
    Ok(layers)
}

/// The directories that must be made, with all above them.
fn amended(layers: &[Open], wanted: &BTreeSet<String>) -> io::Result<BTreeMap<Within, Attributes>> {
    let mut budget = MOST_LOOKS;
    let mut amended = BTreeMap::new();
    for path in wanted {
        let Ok(path) = Within::parse(path.as_bytes()) else { continue };
        match shown(layers, &path, &mut budget)? {
            Some(attributes) if !attributes.is_usual() => amended.insert(path, attributes),
            _ => continue,
        };
    }
    let mut above = BTreeMap::new();
    for path in amended.keys() {
        let mut path = path.parent();
        while !path.is_root() && !amended.contains_key(&path) && !above.contains_key(&path) {
            let attributes = shown(layers, &path, &mut budget)?.unwrap_or(USUAL);
            above.insert(path.clone(), attributes);
            path = path.parent();
        }
    }
    amended.extend(above);
    Ok(amended)
}

/// The attributes that the uppermost layer which knows any gives a directory; `None` if the
/// directory does not show, or none knows.
fn shown(layers: &[Open], path: &Within, budget: &mut u32) -> io::Result<Option<Attributes>> {
    for layer in layers {
        let Some(left) = budget.checked_sub(1) else { return Ok(None) };
        *budget = left;
        match look(layer, path)? {
            Look::Nothing => {}
            Look::Directory { implied: true, opaque: false, .. } => {}
            Look::Directory { stat, implied: false, .. } => return Ok(Some(Attributes::of(&stat))),
            Look::Hidden | Look::Directory { .. } => return Ok(None),
        }
    }
    Ok(None)
}

fn look(layer: &Open, path: &Within) -> io::Result<Look> {
    let mut here = beneath::open_listable(&layer.root, b"")?;
    let mut opaque = false;
    for name in path.names() {
        let Some(found) = beneath::stat(&here, name)? else {
            return Ok(if opaque { Look::Hidden } else { Look::Nothing });
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Ok(Look::Hidden);
        }
        here = beneath::open_listable(&here, name)?;
        opaque |= whiteout::is_opaque(&here)?;
    }
    let stat = Box::new(rustix::fs::fstat(&here)?);
    let text = std::str::from_utf8(path.as_bytes());
    let implied = text.is_ok_and(|path| layer.implied.contains(path));
    Ok(Look::Directory { stat, implied, opaque })
}

fn write(
    store: &Arc<Store>,
    diff: &Digest,
    amended: &BTreeMap<Within, Attributes>,
) -> Result<(), Error> {
    let scratch = store.scratch()?;
    let make = || -> io::Result<()> {
        let root = directory(&scratch.dir, FILES.as_bytes())?;
        set(&root, &USUAL)?;
        // What is above comes first: paths are sorted.
        for path in amended.keys() {
            let parent = beneath::open_dir(&root, path.parent().as_bytes())?;
            directory(&parent, path.name())?;
        }
        for (path, attributes) in amended.iter().rev() {
            set(&beneath::open_listable(&root, path.as_bytes())?, attributes)?;
        }
        Ok(())
    };
    make().at("making directories beneath", store.root())?;
    let names = amended.len() as u64;
    let layer = Layer {
        diff: diff.clone(),
        bytes: names * 4096,
        names,
        has_root: false,
        hides_all: false,
        implied: Vec::new(),
    };
    store.commit_layer(&scratch, layer)
}

fn directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => beneath::open_listable(parent, name),
        Err(errno) => Err(errno.into()),
    }
}

fn set(dir: &OwnedFd, attributes: &Attributes) -> io::Result<()> {
    let Attributes { mode, uid, gid, seconds, nanos } = *attributes;
    rustix::fs::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))?;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    Ok(rustix::fs::futimens(dir, &Timestamps { last_access: time, last_modification: time })?)
}
