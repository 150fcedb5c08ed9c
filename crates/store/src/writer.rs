//! The one writer. Changes that wait while a commit is under way go into the next one together, so
//! that many pods starting at once share the flushes of the disk.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use redb::Database;
use tokio::sync::oneshot;

use crate::{Error, Rows};

/// How many changes one commit may take.
const BATCH: usize = 256;

/// A row to be put, or erased when it has no value.
pub(crate) struct Change {
    pub(crate) table: &'static str,
    pub(crate) key: String,
    pub(crate) row: Option<Vec<u8>>,
}

impl Change {
    pub(crate) fn put(table: &'static str, key: &str, row: Vec<u8>) -> Vec<Self> {
        vec![Self { table, key: key.to_owned(), row: Some(row) }]
    }

    pub(crate) fn erase(table: &'static str, key: &str) -> Vec<Self> {
        vec![Self { table, key: key.to_owned(), row: None }]
    }
}

struct Ask {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), Error>>,
}

pub(crate) struct Writer {
    asks: mpsc::Sender<Ask>,
}

impl Writer {
    pub(crate) fn start(database: Arc<Database>) -> Result<Self, Error> {
        let (asks, queue) = mpsc::channel();
        thread::Builder::new()
            .name("records".into())
            .stack_size(256 << 10)
            .spawn(move || serve(&database, &queue))
            .map_err(|source| Error::io("starting the thread of", "records", source))?;
        Ok(Self { asks })
    }

    /// All of these changes or none of them; durable when this returns.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.asks.send(Ask { changes, done }).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

fn serve(database: &Database, queue: &mpsc::Receiver<Ask>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(BATCH - 1));
        answer(database, batch);
    }
}

/// Commits the batch at once; should that fail, one by one, so that each asker gets its own error.
fn answer(database: &Database, batch: Vec<Ask>) {
    let together = commit(database, batch.iter().flat_map(|ask| &ask.changes));
    let alone = batch.len() == 1;
    let mut failure = together.err();
    for ask in batch {
        let result = match (&failure, alone) {
            (None, _) => Ok(()),
            (Some(_), true) => failure.take().map_or(Ok(()), Err),
            (Some(_), false) => commit(database, ask.changes.iter()),
        };
        // The asker may have gone away; what it asked for is done all the same.
        let _ = ask.done.send(result);
    }
}

fn commit<'a>(database: &Database, changes: impl Iterator<Item = &'a Change>) -> Result<(), Error> {
    let write = database.begin_write()?;
    for change in changes {
        let mut rows = write.open_table(Rows::new(change.table))?;
        match &change.row {
            Some(row) => rows.insert(change.key.as_str(), row.as_slice())?,
            None => rows.remove(change.key.as_str())?,
        };
    }
    Ok(write.commit()?)
}
