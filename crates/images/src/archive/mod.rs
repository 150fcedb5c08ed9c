//! Images in files: loaded as they are pulled, saved, and made of what lies on the host.

mod load;
mod make;
mod packed;
mod save;
#[cfg(test)]
mod tests;
mod tree;

pub use make::{NewFile, NewKind};

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::Arc,
};

use names::ImageRef;
use rustix::fs::{Mode, OFlags};

use self::packed::Packed;
use crate::{
    Images,
    error::{At, Error},
    image::Image,
    manifest::Descriptor,
    pull::Names,
    store::Scratch,
};

/// What an image of an archive is fetched by: no registry is asked for it.
const NOWHERE: &str = "localhost/archive";

fn bad(why: impl Into<String>) -> Error {
    Error::BadArchive { why: why.into(), source: None }
}

/// A file for what is on its way. It goes with its directory, or with its last reader.
fn spool(scratch: &Scratch) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&scratch.dir, "spool", flags, Mode::RUSR | Mode::WUSR);
    Ok(File::from(file.at("making a file beneath", scratch.root())?))
}

/// A reader as a file that can be read at any place.
fn spooled(scratch: &Scratch, reader: &mut dyn Read, most: u64) -> Result<File, Error> {
    let mut file = spool(scratch)?;
    let mut limited = reader.take(most.saturating_add(1));
    let length = io::copy(&mut limited, &mut file).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull => Error::io("writing beneath", scratch.root(), source),
        _ => Error::BadArchive { why: "it cannot be read".into(), source: Some(source) },
    })?;
    if length > most {
        return Err(bad(format!("it has more than {most} bytes")));
    }
    file.seek(SeekFrom::Start(0)).at("reading beneath", scratch.root())?;
    Ok(file)
}

impl Images {
    /// Takes in what is packed, exactly as if it were pulled.
    async fn take(
        &self,
        packed: Arc<Packed>,
        top: &Descriptor,
        tags: Vec<ImageRef>,
    ) -> Result<Arc<Image>, Error> {
        let image: ImageRef = NOWHERE.parse()?;
        let wanted = top.digest.as_str();
        let pull = self.new_pull(packed, image, wanted, None, Names::Tags(tags));
        let (told, _) = tokio::sync::watch::channel(crate::Progress::default());
        let id = pull.run(told).await?;
        // Somebody may have removed it already.
        self.find(id.as_str()).ok_or_else(|| Error::NoSuchImage(id.to_string()))
    }

    fn archive_path(&self) -> PathBuf {
        self.root().join("tmp")
    }
}
