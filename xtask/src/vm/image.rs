//! The machine's own disk, with its kernel and initrd. It is made once, of Debian's packages and the
//! few files of `vm/guest/etc`; nobody writes to it afterwards.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use super::{debian::Debian, place::Place, progress::Progress};
use crate::{
    children,
    files::{self, at},
};

/// In bytes; holes, until something is written.
const SIZE: u64 = 8 << 30;

pub(super) struct Image {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// The one that is there, or a new one.
pub(super) fn ready(place: &Place) -> Result<Image, String> {
    let lock = place.vm.join("lock");
    let held = fs::File::create(&lock).map_err(at("making", &lock))?;
    held.lock().map_err(at("waiting for another run that holds", &lock))?;
    let debian = Debian::of_host()?;
    let guest = crate::root().join("vm/guest/etc");
    let dir = place.vm.join(format!("image-{}", key(&debian, &guest)?));
    if !dir.is_dir() {
        make(place, &debian, &guest, &dir)?;
        remove_others(place, &dir);
    }
    let [disk, kernel, initrd] = ["root.img", "vmlinuz", "initrd.img"].map(|name| dir.join(name));
    Ok(Image { disk, kernel, initrd })
}

fn key(debian: &Debian, guest: &Path) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    (SIZE, debian.inputs()).hash(&mut hasher);
    for file in files(guest, Path::new(""))? {
        let path = guest.join(&file);
        let content = fs::read(&path).map_err(at("reading", &path))?;
        (file, content).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// The files beneath a folder, relative to it, in order.
fn files(root: &Path, below: &Path) -> Result<Vec<PathBuf>, String> {
    let dir = root.join(below);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(at("listing", &dir))?.flatten() {
        let name = below.join(entry.file_name());
        if entry.path().is_dir() {
            found.extend(files(root, &name)?);
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Makes it aside, and renames it when it is whole.
fn make(place: &Place, debian: &Debian, guest: &Path, dir: &Path) -> Result<(), String> {
    let progress =
        Progress::begin("making the machine's disk of Debian's packages; minutes, but only once");
    let (root, made) = (place.own("root"), place.own("image"));
    install(place, debian, &root)?;
    files::make_dir(&made)?;
    for (kind, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        take_boot(&root, kind, &made.join(name))?;
    }
    for file in files(guest, Path::new(""))? {
        put(guest, &root.join("etc"), &file)?;
    }
    // What is in there is udev's to make.
    files::remove(&root.join("dev"))?;
    files::make_dir(&root.join("dev"))?;
    children::make_disk(&root, &made.join("root.img"), SIZE)?;
    fs::rename(&made, dir).map_err(at("renaming", &made))?;
    progress.end("it is made");
    Ok(())
}

fn install(place: &Place, debian: &Debian, root: &Path) -> Result<(), String> {
    let (sources, scratch) = (place.own("sources.list"), place.own("tmp"));
    files::write(&sources, &debian.sources)?;
    files::make_dir(&scratch)?;
    let mut mmdebstrap = children::family("mmdebstrap");
    debian.order(&mut mmdebstrap);
    mmdebstrap.arg(root).arg(&sources).env("TMPDIR", &scratch);
    children::finish(mmdebstrap, "mmdebstrap")
}

fn take_boot(root: &Path, kind: &str, to: &Path) -> Result<(), String> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).map_err(at("listing", &boot))?.flatten();
    let is_it = |name: &str| name.starts_with(kind);
    let found = entries
        .map(|it| it.path())
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_it));
    let found = found.ok_or_else(|| format!("there is no {kind}* in {}", boot.display()))?;
    fs::copy(&found, to).map(drop).map_err(at("copying", &found))
}

fn put(from: &Path, etc: &Path, file: &Path) -> Result<(), String> {
    let (from, to) = (from.join(file), etc.join(file));
    if let Some(dir) = to.parent() {
        files::make_dir(dir)?;
    }
    // What is there may be a link, to what is not ours to write.
    let _ = fs::remove_file(&to);
    fs::copy(&from, &to).map(drop).map_err(at("copying", &from))
}

/// One image is enough.
fn remove_others(place: &Place, dir: &Path) {
    for entry in fs::read_dir(&place.vm).into_iter().flatten().flatten() {
        let is_image = entry.file_name().to_string_lossy().starts_with("image-");
        if is_image && entry.path() != dir {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
