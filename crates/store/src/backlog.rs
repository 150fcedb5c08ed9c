//! Changes that the database does not have yet: numbered, in the journal, and here for whoever reads.
//! Whoever wants to know when the database has his waits for that here. Nothing here writes to the
//! database: that is the `writer`.

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use tokio::sync::oneshot;

use crate::{
    Error,
    journal::{Entry, Journal},
    seal::Key,
};

/// A row to be put, or erased when it has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) table: String,
    pub(crate) key: String,
    pub(crate) row: Option<Vec<u8>>,
}

impl Change {
    pub(crate) fn put(table: &str, key: &str, row: Vec<u8>) -> Self {
        Self { table: table.to_owned(), key: key.to_owned(), row: Some(row) }
    }

    pub(crate) fn erase(table: &str, key: &str) -> Self {
        Self { table: table.to_owned(), key: key.to_owned(), row: None }
    }

    fn is_of_row(&self, other: &Self) -> bool {
        self.table == other.table && self.key == other.key
    }
}

/// How many bytes the journal may have beyond what waits.
const TIDY: u64 = 1 << 20;

type Asker = oneshot::Sender<Result<(), Error>>;
pub(crate) type Answer = oneshot::Receiver<Result<(), Error>>;

/// Changes that are made together.
struct Waiting {
    changes: Arc<Vec<Change>>,
    asker: Option<Asker>,
}

impl Waiting {
    /// Whether somebody waits to hear what became of it.
    fn is_asked_for(&self) -> bool {
        self.asker.as_ref().is_some_and(|asker| !asker.is_closed())
    }
}

pub(crate) struct Backlog {
    journal: Journal,
    key: Arc<Key>,
    /// By number.
    waiting: BTreeMap<u64, Waiting>,
    /// The number of the newest.
    last: u64,
    /// Since when something waits that has not been tried.
    since: Option<Instant>,
    /// Whether somebody cannot wait.
    urgent: bool,
}

impl Backlog {
    /// What the journal has beyond number `done`, which is the last that the database has.
    pub(crate) fn new(journal: Journal, key: Arc<Key>, entries: Vec<Entry>, done: u64) -> Self {
        let last = entries.last().map_or(done, |entry| entry.number.max(done));
        let missing = entries.into_iter().filter(|entry| entry.number > done);
        let waiting: BTreeMap<_, _> = missing
            .map(|entry| (entry.number, Waiting { changes: Arc::new(entry.changes), asker: None }))
            .collect();
        let since = (!waiting.is_empty()).then(Instant::now);
        Self { journal, key, waiting, last, since, urgent: false }
    }

    /// Takes changes in. They outlive the daemon then, unless the journal cannot be written; if not,
    /// or if they are `asked` for, they are urgent, and there is an answer to wait for.
    pub(crate) fn add(
        &mut self,
        changes: Vec<Change>,
        asked: bool,
    ) -> (io::Result<()>, Option<Answer>) {
        self.last += 1;
        let entry = Entry { number: self.last, changes };
        let journaled = self.journal.add(&entry, &self.key);
        self.supersede(&entry.changes);
        let urgent = asked || journaled.is_err();
        let (asker, answer) = urgent.then(oneshot::channel).unzip();
        let changes = Arc::new(entry.changes);
        self.waiting.insert(entry.number, Waiting { changes, asker });
        self.since.get_or_insert_with(Instant::now);
        self.urgent |= urgent;
        (journaled, answer)
    }

    /// Forgets older changes of the same rows, but for those that somebody waits to hear of.
    fn supersede(&mut self, newer: &[Change]) {
        self.waiting.retain(|_, older| {
            if older.is_asked_for() {
                return true;
            }
            let is_new = |change: &Change| !newer.iter().any(|newer| newer.is_of_row(change));
            if !older.changes.iter().all(is_new) {
                Arc::make_mut(&mut older.changes).retain(is_new);
            }
            !older.changes.is_empty()
        });
    }

    /// Since when something waits, and whether that is urgent.
    pub(crate) fn pressing(&self) -> Option<(Instant, bool)> {
        self.since.map(|since| (since, self.urgent))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All that waits, by number. What comes from now on presses anew.
    pub(crate) fn take_on(&mut self) -> Vec<(u64, Arc<Vec<Change>>)> {
        (self.since, self.urgent) = (None, false);
        self.waiting.iter().map(|(number, it)| (*number, Arc::clone(&it.changes))).collect()
    }

    /// The database has this one.
    pub(crate) fn done(&mut self, number: u64) {
        if let Some(asker) = self.waiting.remove(&number).and_then(|waiting| waiting.asker) {
            let _ = asker.send(Ok(()));
        }
    }

    /// The database will not take this one. Whoever waits to hear of it is told, and it is as if it had
    /// never been asked for. One that nobody waits for was promised: it stays.
    pub(crate) fn refused(&mut self, number: u64, error: Error) {
        let asked = self.waiting.get(&number).is_some_and(Waiting::is_asked_for);
        if !asked {
            tracing::warn!(
                error = names::chain(&error),
                "a record cannot be written yet; it is kept in the journal"
            );
            return;
        }
        if let Some(asker) = self.waiting.remove(&number).and_then(|waiting| waiting.asker) {
            let _ = asker.send(Err(error));
        }
    }

    /// Up to which number the database has everything, should it have all up to `number` but for what
    /// waits.
    pub(crate) fn done_before(&self, number: u64) -> u64 {
        match self.waiting.first_key_value() {
            Some((first, _)) if *first < number => first - 1,
            _ => number,
        }
    }

    /// Shortens the journal to what waits, once it is much longer.
    pub(crate) fn tidy(&mut self) {
        if self.journal.length() <= TIDY + 2 * self.journal.shortest() {
            return;
        }
        let entry = |(number, waiting): (&u64, &Waiting)| Entry {
            number: *number,
            changes: waiting.changes.to_vec(),
        };
        let entries: Vec<_> = self.waiting.iter().map(entry).collect();
        if let Err(error) = self.journal.replace(&entries, &self.key) {
            // It is read again at the next start, and what is in it is known by its numbers.
            tracing::warn!(%error, "the journal of records cannot be shortened");
        }
    }

    /// What rows of this table are to be, newest last.
    pub(crate) fn of(&self, table: &str) -> Vec<Change> {
        let all = self.waiting.values().flat_map(|waiting| waiting.changes.iter());
        all.filter(|change| change.table == table).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(folder: &std::path::Path, done: u64) -> Backlog {
        let key = Arc::new(Key::of_zeros());
        let (journal, entries) = Journal::open(&folder.join("journal"), &key).unwrap();
        Backlog::new(journal, key, entries, done)
    }

    fn put(key: &str, row: &[u8]) -> Vec<Change> {
        vec![Change::put("t", key, row.to_vec())]
    }

    fn numbers(backlog: &mut Backlog) -> Vec<u64> {
        backlog.take_on().into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn what_the_database_has_not_is_taken_from_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = backlog(folder.path(), 0);
        for (key, row) in [("a", b"1"), ("b", b"2"), ("a", b"3")] {
            drop(before.add(put(key, row), false));
        }
        assert_eq!(numbers(&mut before), [2, 3], "the first is superseded");
        let mut after = backlog(folder.path(), 2);
        assert_eq!(after.of("t"), put("a", b"3"));
        drop(after.add(put("c", b"4"), false));
        assert_eq!(numbers(&mut after), [3, 4]);
        let all = backlog(folder.path(), 9);
        assert!(all.is_empty() && all.last == 9);
    }

    #[test]
    fn a_refusal_is_told_to_who_waits_and_else_the_change_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut backlog = backlog(folder.path(), 0);
        let mut asked = backlog.add(put("a", b"1"), true).1.unwrap();
        drop(backlog.add(put("a", b"2"), false));
        assert_eq!(numbers(&mut backlog), [1, 2], "who waits is not passed over");
        backlog.refused(1, Error::Closed);
        backlog.refused(2, Error::Closed);
        assert!(matches!(asked.try_recv(), Ok(Err(Error::Closed))));
        assert_eq!(backlog.of("t"), put("a", b"2"));
        assert_eq!((backlog.done_before(7), backlog.done_before(1)), (1, 1));
        drop(backlog.add(vec![Change::erase("t", "a")], false));
        assert_eq!(numbers(&mut backlog), [3]);
        backlog.done(3);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_journal_that_grows_is_cut_to_what_waits() {
        let folder = tempfile::tempdir().unwrap();
        let mut backlog = backlog(folder.path(), 0);
        let large = vec![7; 300 << 10];
        drop(backlog.add(put("first", b"stays"), false));
        for n in 2..=5 {
            drop(backlog.add(put(&n.to_string(), &large), false));
            backlog.done(n);
            backlog.tidy();
        }
        assert!(backlog.journal.length() < large.len() as u64);
        drop(backlog.add(put("last", b"stays too"), false));
        let after = super::tests::backlog(folder.path(), 0).of("t");
        assert_eq!(after, [put("first", b"stays"), put("last", b"stays too")].concat());
    }
}
