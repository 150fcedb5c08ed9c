//! Durable records: put, get, scan, erase.
//!
//! A record is a row of a named table. It is written as JSON under a version number and a seal: a
//! keyed checksum over table, key, version and content, so that a damaged, edited or foreign row is
//! noticed. A row that cannot be read is never deleted: it is set aside in the quarantine, where it
//! can be listed and, once what it owned is cleaned up, removed.
//!
//! Every write is durable when it returns. Writes that come at the same time share one commit and
//! so one flush of the disk. There are no business words in here.

mod error;
mod file;
mod quarantine;
mod seal;
mod writer;

use std::{marker::PhantomData, path::Path, sync::Arc};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};

pub use error::Error;
use file::DatabaseFile;
pub use quarantine::Quarantined;
use seal::Key;
use writer::{Change, Writer};

type Rows<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

/// The one open handle of a store's file. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: Arc<DatabaseFile>,
    writer: Writer,
    key: Key,
}

impl Store {
    /// Opens the store in the folder `root`, and makes it, with its key, if it is not there.
    ///
    /// A file that the database cannot open is renamed to `records.redb.damaged`, said so in the
    /// log, and begun anew: a daemon that does not start helps nobody.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let key = Key::open(&root.join("records.key"))?;
        let database = Arc::new(DatabaseFile::open(&root.join("records.redb"))?);
        let writer = Writer::start(Arc::clone(&database), &root.join("records.reserve"))?;
        // The folder may be one that others go through, and plans have secrets in their environment.
        let ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let file = root.join("records.redb");
        std::fs::set_permissions(&file, ours)
            .map_err(|source| Error::io("restricting", &file, source))?;
        Ok(Self { inner: Arc::new(Inner { database, writer, key }) })
    }

    /// The records of one kind. `version` is that of the shape of `T`: a row of another version is
    /// not guessed at.
    pub fn records<T>(&self, table: &'static str, version: u8) -> Records<T> {
        Records { store: self.clone(), table, version, kind: PhantomData }
    }

    fn rows(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let database = self.inner.database.read()?;
        let read = database.begin_read()?;
        let rows = match read.open_table(Rows::new(table)) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            rows => rows?,
        };
        rows.iter()?
            .map(|row| row.map(|(key, row)| (key.value().to_owned(), row.value().to_vec())))
            .collect::<Result<_, _>>()
            .map_err(Error::from)
    }
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
    /// Writes the record; it is durable when this returns.
    pub async fn put(&self, key: &str, record: &T) -> Result<(), Error> {
        let content = serde_json::to_vec(record).map_err(|source| self.unwritable(key, source))?;
        let row = self.store.inner.key.seal(self.table, key, self.version, &content);
        self.store.inner.writer.write(Change::put(self.table, key, row)).await
    }

    /// Erases the record; no record is no error.
    pub async fn erase(&self, key: &str) -> Result<(), Error> {
        self.store.inner.writer.write(Change::erase(self.table, key)).await
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
