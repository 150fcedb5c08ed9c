//! The one that writes to the database: a thread that takes all that waits into one commit, so that
//! many pods starting at once share the flushes of the disk. What nobody waits for may wait a moment
//! for company.
//!
//! After an error of the disk the database takes no more commits until it is opened anew, so that is
//! done here.

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use names::Class;
use redb::ReadableDatabase;

use crate::{
    DONE, Error, Numbers, Rows,
    backlog::{Answer, Backlog, Change},
    file::DatabaseFile,
    reserve::Reserve,
};

/// How long a change that nobody waits for may wait for others.
const COMPANY: Duration = Duration::from_millis(100);

/// When what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// For ever, but for a clock that cannot count so far.
const LONG: Duration = Duration::from_secs(86_400);

/// A record on its way to the disk.
#[must_use = "whoever does not wait need not ask"]
pub struct Syncing(Option<Answer>);

impl Syncing {
    /// Waits until the record would outlive a loss of power.
    ///
    /// # Errors
    /// Of the disk. The record is as it was before, then.
    pub async fn done(self) -> Result<(), Error> {
        let Some(answer) = self.0 else { return Ok(()) };
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// What the thread and those who ask share.
struct Desk {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    backlog: Backlog,
    /// Whether nobody is left who could ask.
    closed: bool,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Writer {
    desk: Arc<Desk>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.desk.state().closed = true;
        self.desk.news.notify_one();
    }
}

impl Writer {
    pub(crate) fn start(
        database: Arc<DatabaseFile>,
        reserve: &Path,
        backlog: Backlog,
    ) -> Result<Self, Error> {
        let state = State { backlog, closed: false };
        let desk = Arc::new(Desk { state: Mutex::new(state), news: Condvar::new() });
        let reserve = Reserve::at(reserve.to_owned());
        let mut pen = Pen { database, desk: Arc::clone(&desk), reserve };
        thread::Builder::new()
            .name("records".into())
            .stack_size(256 << 10)
            .spawn(move || pen.serve())
            .map_err(|source| Error::io("starting the thread of", "records", source))?;
        Ok(Self { desk })
    }

    /// All of these changes or none of them. They outlive the daemon when this returns, and a loss of
    /// power soon; if they are `asked` for, at once, and the answer tells when.
    pub(crate) async fn write(&self, changes: Vec<Change>, asked: bool) -> Result<Syncing, Error> {
        let (journaled, answer) = self.add(changes, asked);
        let syncing = Syncing(answer);
        if let Err(error) = journaled {
            tracing::warn!(%error, "the journal of records cannot be written; every change waits for the disk");
            syncing.done().await?;
            return Ok(Syncing(None));
        }
        Ok(syncing)
    }

    fn add(&self, changes: Vec<Change>, asked: bool) -> (std::io::Result<()>, Option<Answer>) {
        let mut state = self.desk.state();
        let pressed = state.backlog.pressing();
        let added = state.backlog.add(changes, asked);
        let presses = state.backlog.pressing();
        drop(state);
        // Who waits for company need not hear of each that comes.
        if pressed != presses {
            self.desk.news.notify_one();
        }
        added
    }

    /// Looks at the database, and at what it has not yet, as they are at one instant.
    pub(crate) fn look<T>(&self, table: &str, begin: impl FnOnce() -> T) -> (T, Vec<Change>) {
        let state = self.desk.state();
        (begin(), state.backlog.of(table))
    }
}

/// The number up to which the database has every change.
pub(crate) fn done(database: &DatabaseFile) -> Result<u64, Error> {
    let read = database.read()?.begin_read()?;
    match read.open_table(Numbers::new(DONE)) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        table => Ok(table?.get(())?.map_or(0, |number| number.value())),
    }
}

type Batch = Vec<(u64, Arc<Vec<Change>>)>;

/// What the thread has.
struct Pen {
    database: Arc<DatabaseFile>,
    desk: Arc<Desk>,
    reserve: Reserve,
}

impl Pen {
    fn serve(&mut self) {
        self.reserve.take();
        while let Some(batch) = self.wait() {
            self.answer(&batch);
            self.desk.state().backlog.tidy();
        }
    }

    /// What is to be written next. None when there is nothing, and nobody who could ask.
    fn wait(&self) -> Option<Batch> {
        let mut state = self.desk.state();
        loop {
            let patience = match (state.backlog.pressing(), state.closed) {
                (Some((_, true)), _) | (Some(_), true) => break,
                (None, true) => return None,
                (Some((since, false)), false) => COMPANY.saturating_sub(since.elapsed()),
                (None, false) if state.backlog.is_empty() => LONG,
                (None, false) => RETRY,
            };
            let woken = self.desk.news.wait_timeout(state, patience);
            let (next, slept) = woken.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if slept.timed_out() && !state.backlog.is_empty() {
                break;
            }
        }
        Some(state.backlog.take_on())
    }

    /// Commits the batch at once; should that fail, one by one, so that each asker gets its own
    /// error, and one that cannot be served is in nobody's way.
    fn answer(&mut self, batch: &Batch) {
        let Some((last, _)) = batch.last() else { return };
        match self.commit(batch, *last) {
            Ok(()) => {
                let mut state = self.desk.state();
                batch.iter().for_each(|(number, _)| state.backlog.done(*number));
            }
            Err(error) if batch.len() == 1 => self.desk.state().backlog.refused(*last, error),
            Err(_) => batch.iter().for_each(|one| self.answer_one(one)),
        }
    }

    fn answer_one(&mut self, one: &(u64, Arc<Vec<Change>>)) {
        let number = one.0;
        let done = self.desk.state().backlog.done_before(number);
        let result = self.commit(std::slice::from_ref(one), done);
        let mut state = self.desk.state();
        match result {
            Ok(()) => state.backlog.done(number),
            Err(error) => state.backlog.refused(number, error),
        }
    }

    fn commit(&mut self, batch: &[(u64, Arc<Vec<Change>>)], done: u64) -> Result<(), Error> {
        let failed = match self.try_commit(batch, done) {
            Ok(()) => {
                self.reserve.take();
                return Ok(());
            }
            Err(failed) => failed,
        };
        self.database.reopen()?;
        let mut changes = batch.iter().flat_map(|(_, changes)| changes.iter());
        if failed.class() != Class::ResourceExhausted || !changes.all(|change| change.row.is_none())
        {
            return Err(failed);
        }
        self.reserve.give_up();
        self.try_commit(batch, done).inspect_err(|_| {
            // What went wrong is told; the next commit finds an open database or says why not.
            let _ = self.database.reopen();
        })
    }

    fn try_commit(&self, batch: &[(u64, Arc<Vec<Change>>)], done: u64) -> Result<(), Error> {
        let database = self.database.read()?;
        let write = database.begin_write()?;
        for change in batch.iter().flat_map(|(_, changes)| changes.iter()) {
            let mut rows = write.open_table(Rows::new(&change.table))?;
            match &change.row {
                Some(row) => rows.insert(change.key.as_str(), row.as_slice())?,
                None => rows.remove(change.key.as_str())?,
            };
        }
        write.open_table(Numbers::new(DONE))?.insert((), done)?;
        Ok(write.commit()?)
    }
}
