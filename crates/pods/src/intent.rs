//! The record of what is being made, on its way to the disk beside the first steps: what they make is gone
//! with the boot, so that until then it is enough that the record outlives the daemon.

use serde::{Serialize, de::DeserializeOwned};
use store::{Records, Syncing};

use crate::{Error, step::Phase};

/// None until something is made, and once it would outlive a loss of power.
#[derive(Default)]
pub(crate) struct Intent(Option<Syncing>);

impl Intent {
    /// Writes the record, which is in this phase. What is made may be told of when this returns.
    pub(crate) async fn record<R, S>(
        &mut self,
        records: &Records<R>,
        id: &str,
        record: &R,
        phase: Phase<S>,
    ) -> Result<(), Error>
    where
        R: Serialize + DeserializeOwned,
    {
        if let Phase::Making(_) = phase {
            self.0 = Some(records.put_synced(id, record).await?);
            return Ok(());
        }
        records.put(id, record).await?;
        if let Phase::Made = phase { self.settle().await } else { Ok(()) }
    }

    /// Waits until the record would outlive a loss of power: before anything is made that does, and
    /// before anybody is told.
    pub(crate) async fn settle(&mut self) -> Result<(), Error> {
        let Some(syncing) = self.0.take() else { return Ok(()) };
        Ok(syncing.done().await?)
    }
}
