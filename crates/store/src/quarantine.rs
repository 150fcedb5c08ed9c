//! Rows that could not be read, and whole files: kept as they are, with the reason, until somebody removes
//! them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, Store, backlog::Change};

const TABLE: &str = "quarantine";

/// What stands for the table of a file that had all of them.
const FILES: &str = "files";

/// A row that was set aside, or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The table that it was found in; `files` of a damaged file of records.
    pub table: String,
    /// Its key there, or its name.
    pub key: String,
    /// When it was set aside, in ns since 1970.
    #[serde(default)]
    pub at: i64,
    /// Why it could not be read, in words.
    pub reason: String,
    /// The row as it was found; nothing of a file, which is where its name says.
    pub row: Vec<u8>,
}

impl Quarantined {
    /// What it is called in listings: `pods/0123…`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.table, self.key)
    }
}

impl Store {
    pub(crate) async fn set_aside(
        &self,
        table: &'static str,
        key: &str,
        row: Vec<u8>,
        reason: String,
    ) -> Result<(), Error> {
        tracing::error!(table, key, reason, "a record cannot be read and was set aside");
        let held = Quarantined {
            table: table.to_owned(),
            key: key.to_owned(),
            at: names::now(),
            reason,
            row,
        };
        let name = held.name();
        let value = serde_json::to_vec(&held).map_err(|source| Error::Unwritable {
            table: TABLE,
            key: name.clone(),
            source,
        })?;
        let changes = vec![Change::put(TABLE, &name, value), Change::erase(table, key)];
        self.write(changes).await
    }

    /// All that was set aside, in this run of the daemon and before.
    pub fn quarantine(&self) -> Result<Vec<Quarantined>, Error> {
        let rows = self.rows(TABLE)?;
        let rows = rows.iter().filter_map(|(_, row)| serde_json::from_slice(row).ok());
        Ok(rows.chain(self.damaged_files()?).collect())
    }

    /// Removes what is called `name` from the quarantine.
    pub async fn discard(&self, name: &str) -> Result<(), Error> {
        let held = self.quarantine()?.into_iter().find(|held| held.name() == name);
        let Some(held) = held else { return Err(Error::NotInQuarantine(name.to_owned())) };
        if held.table != FILES {
            return self.write(vec![Change::erase(TABLE, name)]).await;
        }
        let file = self.inner.database.folder().join(held.key);
        fs::remove_file(&file).map_err(|source| Error::io("removing", &file, source))
    }

    fn damaged_files(&self) -> Result<Vec<Quarantined>, Error> {
        let folder = self.inner.database.folder();
        let failed = |source| Error::io("listing", folder, source);
        let names = fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let mut names: Vec<_> =
            names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| self.inner.database.was_set_aside(name));
        names.sort();
        Ok(names.into_iter().map(|name| damaged(folder, name)).collect())
    }
}

fn damaged(folder: &Path, name: String) -> Quarantined {
    let file = folder.join(&name);
    // A rename changes no other time.
    let set_aside =
        fs::metadata(&file).map(|file| file.ctime() * 1_000_000_000 + file.ctime_nsec());
    Quarantined {
        table: FILES.to_owned(),
        key: name,
        at: set_aside.unwrap_or_default(),
        reason: format!("damaged, so that its records are lost; it is {}", file.display()),
        row: Vec::new(),
    }
}
