//! The journal: every change that the database may not have yet, in a file of the state folder.
//!
//! A change is in it before the call that asked for it returns, so that it outlives the daemon,
//! however that ends: what a process has written is the kernel's. It is never synced, and its folder
//! is one that a boot empties, so it says nothing of a loss of power: for that there is the database,
//! which follows within moments. Changes are numbered; the database tells the number up to which it
//! has them, and whoever opens it next takes the rest from here.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{Error, backlog::Change, seal::Key};

/// The length of an entry's seal, in bytes.
const SEAL: usize = 32;

/// What an entry holds: changes that are to be made together, and their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
}

pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Up to where it is whole, in bytes.
    length: u64,
    shortest: u64,
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

impl Journal {
    /// Opens it, or makes it, and reads what is in it. An entry that was cut off or damaged is the last.
    pub(crate) fn open(path: &Path, key: &Key) -> Result<(Self, Vec<Entry>), Error> {
        let opened = options().open(path);
        let mut file = opened.map_err(|source| Error::io("opening", path, source))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| Error::io("reading", path, source))?;
        let (entries, whole) = read(&bytes, key);
        if whole < bytes.len() {
            let lost = bytes.len() - whole;
            tracing::warn!(file = %path.display(), lost, "the end of the journal was cut off, or is not ours; it is left out");
        }
        let mut journal = Self { path: path.to_owned(), file, length: whole as u64, shortest: 0 };
        journal.cut().map_err(|source| Error::io("shortening", path, source))?;
        Ok((journal, entries))
    }

    /// Adds an entry. If it cannot be added whole, nothing is.
    ///
    /// # Errors
    /// Of the kernel, if there is no room, say.
    pub(crate) fn add(&mut self, entry: &Entry, key: &Key) -> io::Result<()> {
        let bytes = write(entry, key);
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.cut()?;
                Err(error)
            }
        }
    }

    /// Has these entries alone from now on, or stays as it is.
    pub(crate) fn replace(&mut self, entries: &[Entry], key: &Key) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| write(entry, key)).collect();
        let mut file = options().truncate(true).open(&next)?;
        file.write_all(&bytes)?;
        std::fs::rename(&next, &self.path)?;
        (self.file, self.length) = (file, bytes.len() as u64);
        self.shortest = self.length;
        Ok(())
    }

    /// In bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What its length was when it last had nothing but what was needed, in bytes.
    pub(crate) fn shortest(&self) -> u64 {
        self.shortest
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(drop)
    }
}

/// `length of the body (4), body, seal (32)`.
fn write(entry: &Entry, key: &Key) -> Vec<u8> {
    let body = write_body(entry);
    let mut bytes = Vec::with_capacity(4 + body.len() + SEAL);
    part(&mut bytes, &body);
    bytes.extend(key.seal_entry(&body));
    bytes
}

/// `number (8)`, and of each change `table, key, whether there is a row (1), row`.
fn write_body(entry: &Entry) -> Vec<u8> {
    let mut body = entry.number.to_le_bytes().to_vec();
    for change in &entry.changes {
        part(&mut body, change.table.as_bytes());
        part(&mut body, change.key.as_bytes());
        body.push(u8::from(change.row.is_some()));
        part(&mut body, change.row.as_deref().unwrap_or_default());
    }
    body
}

/// `length (4), bytes`.
fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(part);
}

/// The entries in order, and how many bytes they are.
fn read(bytes: &[u8], key: &Key) -> (Vec<Entry>, usize) {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((entry, after)) = read_entry(rest, key) {
        entries.push(entry);
        rest = after;
    }
    (entries, bytes.len() - rest.len())
}

fn read_entry<'a>(bytes: &'a [u8], key: &Key) -> Option<(Entry, &'a [u8])> {
    let (body, rest) = take_part(bytes)?;
    let (seal, rest) = rest.split_at_checked(SEAL)?;
    if key.is_seal_of_entry(body, seal) { Some((read_body(body)?, rest)) } else { None }
}

fn read_body(body: &[u8]) -> Option<Entry> {
    let (number, mut rest) = body.split_first_chunk()?;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let (change, after) = read_change(rest)?;
        changes.push(change);
        rest = after;
    }
    Some(Entry { number: u64::from_le_bytes(*number), changes })
}

fn read_change(bytes: &[u8]) -> Option<(Change, &[u8])> {
    let text = |part: &[u8]| String::from_utf8(part.to_vec()).ok();
    let (table, bytes) = take_part(bytes)?;
    let (key, bytes) = take_part(bytes)?;
    let (has_row, bytes) = bytes.split_first()?;
    let (row, rest) = take_part(bytes)?;
    let row = match (has_row, row) {
        (0, []) => None,
        (1, row) => Some(row.to_vec()),
        _ => return None,
    };
    Some((Change { table: text(table)?, key: text(key)?, row }, rest))
}

fn take_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// What the body of an entry, if it is one, is when it is written again. For fuzzing.
#[doc(hidden)]
pub fn rewritten(body: &[u8]) -> Option<Vec<u8>> {
    read_body(body).map(|entry| write_body(&entry))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let row = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50));
        let change = ("[a-z]{0,9}", ".{0,9}", row);
        let change = change.prop_map(|(table, key, row)| Change { table, key, row });
        proptest::collection::vec(change, 0..4)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_up_to_where_it_was_cut_off(
            all in proptest::collection::vec(changes(), 0..5), cut in 0usize..400,
        ) {
            let key = Key::of_zeros();
            let entries: Vec<_> =
                (7..).zip(all).map(|(number, changes)| Entry { number, changes }).collect();
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for entry in &entries {
                bytes.extend(write(entry, &key));
                ends.push(bytes.len());
            }
            bytes.truncate(cut);
            let whole = ends.iter().rposition(|end| *end <= bytes.len()).unwrap();
            prop_assert_eq!(read(&bytes, &key), (entries[..whole].to_vec(), ends[whole]));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes, &Key::of_zeros()).0.is_empty());
            prop_assert!(rewritten(&bytes).is_none_or(|again| again == bytes));
        }
    }

    #[test]
    fn an_entry_that_was_changed_ends_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("journal"), Key::of_zeros());
        let changes = vec![Change { table: "t".into(), key: "k".into(), row: None }];
        let entries = [1, 2, 3].map(|number| Entry { number, changes: changes.clone() });
        let (mut journal, before) = Journal::open(&path, &key).unwrap();
        assert!(before.is_empty());
        entries.iter().for_each(|entry| journal.add(entry, &key).unwrap());
        let third = usize::try_from(journal.length()).unwrap() / 3;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[2 * third - 1] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (mut journal, left) = Journal::open(&path, &key).unwrap();
        assert_eq!(left, entries[..1]);
        journal.add(&entries[2], &key).unwrap();
        let (mut journal, both) = Journal::open(&path, &key).unwrap();
        assert_eq!(both, [entries[0].clone(), entries[2].clone()]);
        journal.replace(&entries[1..2], &key).unwrap();
        journal.add(&entries[2], &key).unwrap();
        assert_eq!(Journal::open(&path, &key).unwrap().1, entries[1..]);
    }
}
