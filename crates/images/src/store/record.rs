//! Records on disk: JSON with a version and a checksum, written whole or not at all.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
};

use names::Digest;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The largest record that is read, in bytes: a config and what is said about it.
const LARGEST: u64 = 32 << 20;

/// Why a record cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is of a program newer than this one.
    Newer(u32),
    /// It is damaged, or none.
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    version: u32,
    /// Of the body's text.
    checksum: Digest,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The whole of a record, so that [`unseal`] can tell whether it is.
pub fn seal(body: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let body = serde_json::value::to_raw_value(body)?;
    let checksum = sum(body.get());
    let mut bytes = serde_json::to_vec(&Sealed { version: VERSION, checksum, body: &body })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads what [`seal`] made.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let damaged = |why: serde_json::Error| Unreadable::Damaged(why.to_string());
    let sealed: Sealed<'_> = serde_json::from_slice(bytes).map_err(damaged)?;
    if sealed.version > VERSION {
        return Err(Unreadable::Newer(sealed.version));
    }
    if sum(sealed.body.get()) != sealed.checksum {
        return Err(Unreadable::Damaged("its checksum is wrong".into()));
    }
    serde_json::from_str(sealed.body.get()).map_err(damaged)
}

fn sum(text: &str) -> Digest {
    Digest::from_sha256(Sha256::digest(text).into())
}

/// Reads the record `name` in `dir`. An error of the disk is not a damaged record.
pub fn read<T: DeserializeOwned>(dir: impl AsFd, name: &str) -> io::Result<Result<T, Unreadable>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Ok(Err(Unreadable::Damaged("it is too large".into())));
    }
    Ok(unseal(&bytes))
}

/// Writes a new file in `dir`; with `durable` it is on the disk afterwards, though not its name.
pub fn write_new(dir: impl AsFd, name: &str, bytes: &[u8], durable: bool) -> io::Result<()> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, mode)?);
    file.write_all(bytes)?;
    if durable { file.sync_all() } else { Ok(()) }
}

/// Puts a record in the place of another, or of none: written beside in `tmp`, synced, renamed, and
/// the name synced too.
pub fn replace(
    tmp: impl AsFd,
    spare: &str,
    dir: impl AsFd,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let (tmp, dir) = (tmp.as_fd(), dir.as_fd());
    let put = || {
        write_new(tmp, spare, bytes, true)?;
        rustix::fs::renameat(tmp, spare, dir, name)?;
        io::Result::Ok(rustix::fs::fsync(dir)?)
    };
    put().inspect_err(|_| {
        // What is left of it is swept at the next start.
        let _ = rustix::fs::unlinkat(tmp, spare, rustix::fs::AtFlags::empty());
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_reads_back_and_no_changed_one_does() {
        let sealed = seal(&vec!["one", "two"]).unwrap();
        assert_eq!(unseal::<Vec<String>>(&sealed).unwrap(), ["one", "two"]);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            if let Ok(read) = unseal::<Vec<String>>(&damaged) {
                assert_eq!(read, ["one", "two"], "byte {at}");
            }
            assert!(unseal::<Vec<String>>(&sealed[..at.min(sealed.len() - 2)]).is_err());
        }
    }

    #[test]
    fn a_newer_record_is_told_from_a_damaged_one() {
        let text = String::from_utf8(seal(&1).unwrap()).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert_eq!(unseal::<u32>(newer.as_bytes()), Err(Unreadable::Newer(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unseal::<Vec<String>>(&bytes);
        }
    }
}
