//! Rows that could not be read: kept as they are, with the reason, until somebody removes them.

use serde::{Deserialize, Serialize};

use crate::{Error, Store, backlog::Change};

const TABLE: &str = "quarantine";

/// A row that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The table that it was found in.
    pub table: String,
    /// Its key there.
    pub key: String,
    /// When it was set aside, in ns since 1970.
    #[serde(default)]
    pub at: i64,
    /// Why it could not be read, in words.
    pub reason: String,
    /// The row as it was found.
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
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let held = Quarantined {
            table: table.to_owned(),
            key: key.to_owned(),
            at: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
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
        Ok(rows.iter().filter_map(|(_, row)| serde_json::from_slice(row).ok()).collect())
    }

    /// Removes what is called `name` from the quarantine.
    pub async fn discard(&self, name: &str) -> Result<(), Error> {
        if !self.quarantine()?.iter().any(|held| held.name() == name) {
            return Err(Error::NotInQuarantine(name.to_owned()));
        }
        self.write(vec![Change::erase(TABLE, name)]).await
    }
}
