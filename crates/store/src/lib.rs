//! Durable records: put, get, scan, erase.
//!
//! A record is a row of a named table. It is written as JSON under a version number and a seal: a
//! keyed checksum over table, key, version and content, so that a damaged, edited or foreign row is
//! noticed. A row that cannot be read is never deleted: it is set aside in the quarantine, where it
//! can be listed and, once what it owned is cleaned up, removed.
//!
//! A write outlives the process when it returns, however that ends: it is in a journal, in a folder
//! that lasts as long as the boot. It outlives a loss of power within moments, when the database has
//! it; who must know when can ask. Writes reach the database in their order, and those that come at
//! the same time share one commit and so one flush of the disk. There are no business words in here.

mod backlog;
mod error;
mod file;
mod journal;
mod quarantine;
mod reserve;
mod seal;
mod writer;

use std::{collections::BTreeMap, marker::PhantomData, path::Path, sync::Arc};

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};

use backlog::{Backlog, Change};
pub use error::Error;
use file::DatabaseFile;
use journal::Journal;
#[doc(hidden)]
pub use journal::rewritten as rewritten_journal_entry;
pub use quarantine::Quarantined;
use seal::Key;
pub use writer::Syncing;
use writer::Writer;

type Rows<'a> = TableDefinition<'a, &'static str, &'static [u8]>;
type Numbers<'a> = TableDefinition<'a, (), u64>;

/// The table that has the number of the last change that is in the database with all before it.
const DONE: &str = "journal";

/// The one open handle of a store's file. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Arc<DatabaseFile>,
    writer: Writer,
    key: Arc<Key>,
}

impl Store {
    /// Opens the store in the folder `root`, and makes it, with its key, if it is not there. Its
    /// journal is in `state`, a folder that lasts as long as the boot.
    ///
    /// A file that the database cannot open is renamed to `records.redb.damaged`, said so in the
    /// log, and begun anew: a daemon that does not start helps nobody.
    pub fn open(root: &Path, state: &Path) -> Result<Self, Error> {
        let key = Arc::new(Key::open(&root.join("records.key"))?);
        let database = Arc::new(DatabaseFile::open(&root.join("records.redb"))?);
        // Not before: whoever had the database wrote to it.
        let (journal, entries) = Journal::open(&state.join("records.journal"), &key)?;
        let backlog = Backlog::new(journal, Arc::clone(&key), entries, writer::done(&database)?);
        let reserve = root.join("records.reserve");
        let writer = Writer::start(Arc::clone(&database), &reserve, backlog)?;
        // The folder may be one that others go through, and plans have secrets in their environment.
        let ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let file = root.join("records.redb");
        std::fs::set_permissions(&file, ours)
            .map_err(|source| Error::io("restricting", &file, source))?;
        // A file that is on the disk is not there without its name, nor is the folder's.
        for folder in [Some(root), root.parent()].into_iter().flatten() {
            let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| Error::io("syncing", folder, source))?;
        }
        Ok(Self { inner: Arc::new(Inner { database, writer, key }) })
    }

    /// The records of one kind. `version` is that of the shape of `T`: a row of another version is
    /// not guessed at.
    pub fn records<T>(&self, table: &'static str, version: u8) -> Records<T> {
        Records { store: self.clone(), table, version, kind: PhantomData }
    }

    async fn write(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.inner.writer.write(changes, false).await.map(drop)
    }

    /// Those of the database, with the changes that it has not yet.
    fn rows(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let database = self.inner.database.read()?;
        let (read, changes) = self.inner.writer.look(table, || database.begin_read());
        let mut rows = stored(&read?, table)?;
        for change in changes {
            match change.row {
                Some(row) => rows.insert(change.key, row),
                None => rows.remove(&change.key),
            };
        }
        Ok(rows.into_iter().collect())
    }
}

fn stored(read: &ReadTransaction, table: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let rows = match read.open_table(Rows::new(table)) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        rows => rows?,
    };
    rows.iter()?
        .map(|row| row.map(|(key, row)| (key.value().to_owned(), row.value().to_vec())))
        .collect::<Result<_, _>>()
        .map_err(Error::from)
}

/// The records of one kind, `T`.
pub struct Records<T> {
    store: Store,
    table: &'static str,
    version: u8,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Records<T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            table: self.table,
            version: self.version,
            kind: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Writes the record; it outlives the process when this returns, and a loss of power soon.
    pub async fn put(&self, key: &str, record: &T) -> Result<(), Error> {
        let change = self.change(key, record)?;
        self.store.write(vec![change]).await
    }

    /// As [`Self::put`], and asks the disk at once.
    pub async fn put_synced(&self, key: &str, record: &T) -> Result<Syncing, Error> {
        let change = self.change(key, record)?;
        self.store.inner.writer.write(vec![change], true).await
    }

    /// Erases the record; no record is no error.
    pub async fn erase(&self, key: &str) -> Result<(), Error> {
        self.store.write(vec![Change::erase(self.table, key)]).await
    }

    fn change(&self, key: &str, record: &T) -> Result<Change, Error> {
        let content = serde_json::to_vec(record).map_err(|source| self.unwritable(key, source))?;
        let row = self.store.inner.key.seal(self.table, key, self.version, &content);
        Ok(Change::put(self.table, key, row))
    }

    /// Every readable record with its key. The others are moved to the quarantine.
    pub async fn scan(&self) -> Result<Vec<(String, T)>, Error> {
        let mut records = Vec::new();
        for (key, row) in self.store.rows(self.table)? {
            match self.read(&key, &row) {
                Ok(record) => records.push((key, record)),
                Err(why) => self.store.set_aside(self.table, &key, row, why).await?,
            }
        }
        Ok(records)
    }

    fn read(&self, key: &str, row: &[u8]) -> Result<T, String> {
        let content = self.store.inner.key.unseal(self.table, key, self.version, row)?;
        serde_json::from_slice(content).map_err(|error| format!("its content: {error}"))
    }

    fn unwritable(&self, key: &str, source: serde_json::Error) -> Error {
        Error::Unwritable { table: self.table, key: key.to_owned(), source }
    }
}

#[cfg(test)]
mod tests;
