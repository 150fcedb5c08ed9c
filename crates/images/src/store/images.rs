//! Images: records that are put, replaced and erased, with the index following the disk.

use std::sync::{Arc, atomic::Ordering};

use names::{Digest, ImageRef};
use rustix::{fs::AtFlags, io::Errno};

use super::{Index, Store, record};
use crate::{
    error::{At, Error},
    image::{self, Image, Record},
};

/// An image that is to be recorded, all its layers being here and held.
#[derive(Debug)]
pub(crate) struct Draft {
    pub id: Digest,
    pub config: String,
    pub layers: Vec<Digest>,
    pub amend: Option<Digest>,
    pub tags: Vec<ImageRef>,
    pub digests: Vec<ImageRef>,
}

impl Store {
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.index().images.values().cloned().collect()
    }

    pub fn find(&self, text: &str) -> Option<Arc<Image>> {
        image::find(self.index().images.values(), text)
    }

    /// Records an image, or adds names to one that is recorded. A tag that another image had is
    /// taken from that.
    pub fn commit_image(&self, draft: Draft) -> Result<Arc<Image>, Error> {
        let _disk = self.disk();
        let record = self.merged(draft);
        let losers = self.losers(&record);
        let image = self.put(record)?;
        for record in losers {
            self.put(record)?;
        }
        Ok(image)
    }

    /// Gives an image one more tag, which another may have had; no such image is an error.
    pub fn tag(&self, text: &str, tag: ImageRef) -> Result<(), Error> {
        let _disk = self.disk();
        let image = self.find(text).ok_or_else(|| Error::NoSuchImage(text.to_owned()))?;
        let tags = union(Some(&image.tags), vec![tag]);
        let record = Record { tags, ..(*image.record).clone() };
        let losers = self.losers(&record);
        self.put(record)?;
        losers.into_iter().try_for_each(|record| self.put(record).map(drop))
    }

    /// Takes away an image with all its names. No such image is as good as removed.
    pub fn erase(&self, text: &str) -> Result<(), Error> {
        let _disk = self.disk();
        let Some(image) = self.find(text) else { return Ok(()) };
        let name = file(&image.id);
        let path = self.root().join("images").join(&name);
        match rustix::fs::unlinkat(&self.dirs.images, name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("removing", &path, errno)),
        }
        self.index_mut().images.remove(&image.id);
        rustix::fs::fsync(&self.dirs.images).at("syncing the removal of", &path)
    }

    fn merged(&self, draft: Draft) -> Record {
        let index = self.index();
        let before = index.images.get(&draft.id).map(|image| &image.record);
        let size = draft.config.len() as u64 + layers_size(&index, &draft.layers);
        Record {
            tags: union(before.map(|record| &record.tags), draft.tags),
            digests: union(before.map(|record| &record.digests), draft.digests),
            id: draft.id,
            config: draft.config,
            layers: draft.layers,
            amend: draft.amend,
            size,
            turn: 0,
        }
    }

    /// The records of the other images that have a tag of this one, without it.
    fn losers(&self, winner: &Record) -> Vec<Record> {
        let index = self.index();
        let others = index.images.values().filter(|image| image.id != winner.id);
        others
            .filter(|image| image.tags.iter().any(|tag| winner.tags.contains(tag)))
            .map(|image| {
                let mut record = (*image.record).clone();
                record.tags.retain(|tag| !winner.tags.contains(tag));
                record
            })
            .collect()
    }

    /// Writes a record and then shows it.
    fn put(&self, record: Record) -> Result<Arc<Image>, Error> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let record = Record { turn, ..record };
        let path = self.root().join("images").join(file(&record.id));
        let bytes = record::seal(&record).map_err(std::io::Error::from).at("describing", &path)?;
        let name = file(&record.id);
        record::replace(&self.dirs.tmp, &self.spare_name(), &self.dirs.images, &name, &bytes)
            .at("writing", &path)?;
        let id = record.id.clone();
        let image = Image::of(record, &self.keep)
            .map_err(|why| Error::BadConfig { digest: id.clone(), why: why.to_string() })?;
        let image = Arc::new(image);
        self.index_mut().images.insert(id, Arc::clone(&image));
        Ok(image)
    }
}

/// The name of an image's record.
pub(super) fn file(id: &Digest) -> String {
    format!("{}.json", id.hex())
}

fn layers_size(index: &Index, layers: &[Digest]) -> u64 {
    let unique: std::collections::BTreeSet<_> = layers.iter().collect();
    unique.into_iter().filter_map(|diff| index.layers.get(diff)).map(|layer| layer.bytes).sum()
}

fn union(before: Option<&Vec<ImageRef>>, more: Vec<ImageRef>) -> Vec<ImageRef> {
    let mut all = before.cloned().unwrap_or_default();
    for reference in more {
        if !all.contains(&reference) {
            all.push(reference);
        }
    }
    all
}
