//! The database's file: opened, set aside if it is damaged, and opened anew after an error of the
//! disk, which ends what an open database can do.

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use redb::Database;

use crate::Error;

pub(crate) struct DatabaseFile {
    path: PathBuf,
    /// None if it could not be opened anew.
    open: RwLock<Option<Database>>,
}

/// An open database, which is not opened anew for as long as this lives.
pub(crate) struct Open<'a>(RwLockReadGuard<'a, Option<Database>>);

impl std::ops::Deref for Open<'_> {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is made of an open one only")
    }
}

impl DatabaseFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), open: RwLock::new(Some(open(path)?)) })
    }

    pub(crate) fn read(&self) -> Result<Open<'_>, Error> {
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() {
            return Ok(Open(guard));
        }
        drop(guard);
        self.reopen()?;
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() { Ok(Open(guard)) } else { Err(Error::Closed) }
    }

    /// Where it is, with what was set aside.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("."))
    }

    /// Whether a file beside it, of this name, is one that was damaged.
    pub(crate) fn was_set_aside(&self, name: &str) -> bool {
        let first = self.path.with_extension(DAMAGED);
        let rest = first.file_name().and_then(|first| name.strip_prefix(first.to_str()?));
        let is_number =
            |rest: &str| rest.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok());
        rest.is_some_and(|rest| rest.is_empty() || is_number(rest))
    }

    /// Lets go of the database, and opens it again: what was committed is in it.
    pub(crate) fn reopen(&self) -> Result<(), Error> {
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        *guard = Some(Database::open(&self.path)?);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, Error> {
    match whole(path) {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(Error::InUse(path.to_owned())),
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(source)))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            Err(Error::io("opening", path, source))
        }
        Err(damage) => {
            let aside = aside(path);
            tracing::error!(%damage, aside = %aside.display(), "the record file is damaged and was set aside; a new one is begun");
            std::fs::rename(path, &aside).map_err(|source| Error::io("renaming", path, source))?;
            Ok(Database::create(path)?)
        }
        opened => Ok(opened?),
    }
}

/// Opens it, and sees to it that every page is what was written: the database takes for granted what it
/// reads, and a page that is not what it should be would end the daemon, at each start.
fn whole(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_check_integrity_on_open(true).create(path)
}

/// How the name of a damaged file ends; a second one has a number behind it.
const DAMAGED: &str = "redb.damaged";

/// A name that nothing has: what was set aside before is kept too.
fn aside(path: &Path) -> PathBuf {
    let first = path.with_extension(DAMAGED);
    let more = (2..).map(|n| path.with_extension(format!("{DAMAGED}.{n}")));
    std::iter::once(first.clone()).chain(more).find(|name| !name.exists()).unwrap_or(first)
}
