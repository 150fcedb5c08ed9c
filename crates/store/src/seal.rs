//! The seal of a row: HMAC-SHA256 over table, key, version and content, with a key that is made at
//! the first start and readable by root alone. It tells damage, edits by hand and rows of another
//! machine; it is no protection from root.

use std::{
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use hmac::{Hmac, KeyInit, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

use crate::Error;

const KEY_BYTES: usize = 32;
const SEAL_BYTES: usize = 32;

pub(crate) struct Key([u8; KEY_BYTES]);

impl Key {
    /// Reads the key, or makes it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let key = bytes.try_into().map_err(|_| Error::BadKey(path.to_owned()))?;
                Ok(Self(key))
            }
            Err(missing) if missing.kind() == ErrorKind::NotFound => Self::make(path),
            Err(source) => Err(Error::io("reading", path, source)),
        }
    }

    fn make(path: &Path) -> Result<Self, Error> {
        let mut key = [0; KEY_BYTES];
        getrandom(&mut key, GetRandomFlags::empty())
            .map_err(|errno| Error::io("drawing the key for", path, errno.into()))?;
        let half = path.with_extension("key.new");
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&half)
            .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&half, path));
        written.map_err(|source| Error::io("writing", path, source))?;
        Ok(Self(key))
    }

    /// A row: the version, the seal, the content.
    pub(crate) fn seal(&self, table: &str, key: &str, version: u8, content: &[u8]) -> Vec<u8> {
        let seal = self.mac(table, key, version, content).finalize().into_bytes();
        [&[version], seal.as_slice(), content].concat()
    }

    /// The content of a row, if it is of this version and its seal is right; else what is wrong.
    pub(crate) fn unseal<'a>(
        &self,
        table: &str,
        key: &str,
        version: u8,
        row: &'a [u8],
    ) -> Result<&'a [u8], String> {
        let (&written, rest) = row.split_first().ok_or("it is empty")?;
        let (seal, content) = rest.split_at_checked(SEAL_BYTES).ok_or("it is cut short")?;
        self.mac(table, key, written, content)
            .verify_slice(seal)
            .map_err(|_| "its seal is broken: it was damaged, edited, or written elsewhere")?;
        if written == version {
            return Ok(content);
        }
        Err(format!("it is of version {written}, and this podbayd reads {version}"))
    }

    /// The seal of an entry of the journal. No table has an empty name, so that it is no row's.
    pub(crate) fn seal_entry(&self, entry: &[u8]) -> [u8; SEAL_BYTES] {
        self.mac("", "", 0, entry).finalize().into_bytes().into()
    }

    pub(crate) fn is_seal_of_entry(&self, entry: &[u8], seal: &[u8]) -> bool {
        self.mac("", "", 0, entry).verify_slice(seal).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn of_zeros() -> Self {
        Self([0; KEY_BYTES])
    }

    fn mac(&self, table: &str, key: &str, version: u8, content: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            <Hmac<Sha256>>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [table.as_bytes(), key.as_bytes(), &[version]] {
            mac.update(&part.len().to_le_bytes());
            mac.update(part);
        }
        mac.update(content);
        mac
    }
}
