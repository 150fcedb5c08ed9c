//! PAX records: what says more about the next member than its header can. Read by their lengths,
//! so that a value may hold any byte; a record that is not exactly right is refused, since others
//! read it otherwise (RUSTSEC-2026-0112).

use std::collections::BTreeMap;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one member, without those that do not matter to a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Seconds, and nanoseconds after them.
    pub mtime: Option<(i64, i64)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pax {
    /// Reads all the records of a block.
    pub fn parse(mut text: &[u8]) -> Result<Pax, &'static str> {
        let mut pax = Pax::default();
        let mut seen = BTreeMap::new();
        while !text.is_empty() {
            let (key, value, rest) = record(text).ok_or("a PAX record is malformed")?;
            if seen.insert(key, ()).is_some() {
                return Err("a PAX record is there twice");
            }
            pax.take(key, value)?;
            text = rest;
        }
        Ok(pax)
    }

    /// Whether it says anything that would change what a member is or where the next one begins.
    pub fn matters(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let text = (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = name(text)?,
            b"linkpath" => self.link = name(text)?,
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = decimal(value)?,
            b"gid" => self.gid = decimal(value)?,
            b"mtime" if !value.is_empty() => {
                let time = super::number::time(value).ok_or("a PAX time is not a number")?;
                self.mtime = Some(time);
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err("sparse files in the PAX form are not supported");
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

fn name(value: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, &'static str> {
    match value {
        Some(name) if name.contains(&0) => Err("a name holds a NUL"),
        other => Ok(other),
    }
}

fn decimal(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    digits(value).map(Some).ok_or("a PAX number is not a number")
}

/// Decimal digits only: `parse` alone would take a plus sign.
fn digits(text: &[u8]) -> Option<u64> {
    let all = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    all.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// Splits off `LENGTH KEY=VALUE\n`, LENGTH being that of all of it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().position(|b| *b == b' ')?;
    let length = usize::try_from(digits(&text[..space])?).ok()?;
    if length > text.len() {
        return None;
    }
    let (record, rest) = text.split_at(length);
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty()).then_some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_may_hold_any_byte() {
        let pax = Pax::parse(b"27 SCHILY.xattr.user.a=x\ny\n12 path=a/b\n").unwrap();
        assert_eq!(pax.xattrs[b"user.a".as_slice()], b"x\ny");
        assert_eq!(pax.path.as_deref(), Some(b"a/b".as_slice()));
    }

    #[test]
    fn what_readers_could_disagree_about_is_refused() {
        for bad in [
            "12 path=a/b",
            "13 path=a/b\n",
            "+12 path=a/b\n",
            "11 path=a/b\n",
            "0 path=a\n",
            "99999999999999999999 path=a\n",
            "path=a\n",
            "9 path=a\n9 path=b\n",
            "10 size=1x\n",
            "9 size=-1\n",
            "22 GNU.sparse.major=1\n",
        ] {
            assert!(Pax::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Pax::parse(b"11 path=a\0b\n").is_err());
        assert_eq!(Pax::parse(b"8 path=\n").unwrap(), Pax::default());
    }

    proptest! {
        #[test]
        fn any_block_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&text);
        }
    }
}
