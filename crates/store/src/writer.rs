//! The one writer. Changes that wait while a commit is under way go into the next one together, so
//! that many pods starting at once share the flushes of the disk.
//!
//! After an error of the disk the database takes no more commits until it is opened anew, so that is
//! done here. A full disk has a reserve: a file that is given up so that records can still be
//! erased, and taken back when there is room again.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};

use names::Class;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;

use crate::{Error, Rows, file::DatabaseFile};

/// How many changes one commit may take.
const BATCH: usize = 256;

/// The size of the reserve, in bytes: some commits' worth of pages.
const RESERVE: u64 = 1 << 20;

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
    pub(crate) fn start(database: Arc<DatabaseFile>, reserve: &Path) -> Result<Self, Error> {
        let (asks, queue) = mpsc::channel();
        let mut pen = Pen { database, reserve: reserve.to_owned(), reserved: false };
        thread::Builder::new()
            .name("records".into())
            .stack_size(256 << 10)
            .spawn(move || pen.serve(&queue))
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

/// What the writer's thread has.
struct Pen {
    database: Arc<DatabaseFile>,
    reserve: PathBuf,
    /// Whether the reserve is known to be there.
    reserved: bool,
}

impl Pen {
    fn serve(&mut self, queue: &mpsc::Receiver<Ask>) {
        self.take_reserve();
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            batch.extend(queue.try_iter().take(BATCH - 1));
            self.answer(batch);
        }
    }

    /// Commits the batch at once; should that fail, one by one, so that each asker gets its own
    /// error, and one that cannot be served is in nobody's way.
    fn answer(&mut self, batch: Vec<Ask>) {
        let together = self.commit(&batch.iter().flat_map(|ask| &ask.changes).collect::<Vec<_>>());
        let alone = batch.len() == 1;
        let mut failure = together.err();
        for ask in batch {
            let result = match (&failure, alone) {
                (None, _) => Ok(()),
                (Some(_), true) => failure.take().map_or(Ok(()), Err),
                (Some(_), false) => self.commit(&ask.changes.iter().collect::<Vec<_>>()),
            };
            // The asker may have gone away; what it asked for is done all the same.
            let _ = ask.done.send(result);
        }
    }

    fn commit(&mut self, changes: &[&Change]) -> Result<(), Error> {
        let failed = match self.try_commit(changes) {
            Ok(()) => {
                self.take_reserve();
                return Ok(());
            }
            Err(failed) => failed,
        };
        self.database.reopen()?;
        let erases = changes.iter().all(|change| change.row.is_none());
        if failed.class() != Class::ResourceExhausted || !erases {
            return Err(failed);
        }
        tracing::warn!(file = %self.reserve.display(), "the disk is full; the reserve is given up to erase records");
        self.give_reserve();
        self.try_commit(changes).inspect_err(|_| {
            // What went wrong is told; the next commit finds an open database or says why not.
            let _ = self.database.reopen();
        })
    }

    fn try_commit(&self, changes: &[&Change]) -> Result<(), Error> {
        let database = self.database.read()?;
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

    /// Without room for it there is no reserve, and none is needed until there was.
    fn take_reserve(&mut self) {
        if self.reserved {
            return;
        }
        let taken = File::create(&self.reserve)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, RESERVE)?));
        self.reserved = taken.is_ok();
        if !self.reserved {
            self.give_reserve();
        }
    }

    fn give_reserve(&mut self) {
        self.reserved = false;
        let _ = std::fs::remove_file(&self.reserve);
    }
}
