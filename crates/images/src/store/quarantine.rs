//! What could not be read at a start, and was set aside: kept, with the reason beside it, until somebody
//! removes it. What it was of has been forgotten by then: images without it can be pulled anew.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::AtFlags;

use super::{Store, open::names, record};
use crate::error::{At, Error};

/// Something that could not be read, and was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// What it is called there.
    pub name: String,
    /// `layer` or `image`.
    pub kind: &'static str,
    /// Where it is now.
    pub path: PathBuf,
    /// When it was set aside, in ns since 1970.
    pub at: i64,
    pub why: String,
}

impl Store {
    /// Everything that was set aside, at this start or before.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, Error> {
        let path = self.root.join("quarantine");
        let mut all = names(&self.dirs.quarantine).at("listing", &path)?;
        all.retain(|name| !name.ends_with(WHY));
        Ok(all.into_iter().map(|name| told(&path, name)).collect())
    }

    /// Removes what is called `name` there.
    pub fn discard_quarantined(&self, name: &str) -> Result<(), Error> {
        if !self.quarantined()?.iter().any(|held| held.name == name) {
            return Err(Error::NotInQuarantine(name.to_owned()));
        }
        // At once, so that it is never there in half.
        let leftover = self.set_aside(&self.dirs.quarantine, name)?;
        match rustix::fs::unlinkat(&self.dirs.quarantine, note(name), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("removing from", &self.root, errno)),
        }
        leftover.map_or(Ok(()), |leftover| self.discard(&leftover))
    }

    pub(super) fn quarantine(&self, dir: &str, name: &str, why: &str) -> Result<(), Error> {
        let (from, kind) = match dir {
            "layers" => (&self.dirs.layers, LAYER),
            _ => (&self.dirs.images, IMAGE),
        };
        let kept = format!("{kind}-{}-{name}", self.spare_name());
        let path = self.root.join("quarantine").join(&kept);
        rustix::fs::renameat(from, name, &self.dirs.quarantine, kept.as_str())
            .at("setting aside", &self.root.join(dir).join(name))?;
        record::write_new(&self.dirs.quarantine, &note(&kept), why.as_bytes(), false)
            .at("explaining", &path)
    }
}

const LAYER: &str = "layer";
const IMAGE: &str = "image";
const WHY: &str = ".why";

/// Where the reason is.
fn note(name: &str) -> String {
    format!("{name}{WHY}")
}

fn told(quarantine: &Path, name: String) -> Quarantined {
    let (path, note) = (quarantine.join(&name), quarantine.join(note(&name)));
    let kind = if name.starts_with(LAYER) { LAYER } else { IMAGE };
    let at = fs::metadata(&note).map_or(0, |note| note.mtime() * 1_000_000_000 + note.mtime_nsec());
    Quarantined { name, kind, path, at, why: fs::read_to_string(note).unwrap_or_default() }
}
