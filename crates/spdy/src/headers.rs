//! Names and values, and the block that a frame carries them in. Compression is not done here.

use std::collections::BTreeSet;

use crate::error::BadHeaders;

/// Between several values of one name.
const NUL: char = '\0';

/// Headers in their order. Names are in lower case and unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more value of this name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(NUL);
                values.push_str(value);
            }
            None => self.0.push((name, value.to_owned())),
        }
        self
    }

    /// The first value of this name, in whatever case it is asked for.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.into_iter().flat_map(|(_, values)| values.split(NUL))
    }

    /// Reads a block, inflated, of at most so many names.
    pub fn parse(block: &[u8], limit: u32) -> Result<Self, BadHeaders> {
        let mut block = Block(block);
        let count = block.number()?;
        if count > limit {
            return Err(BadHeaders::TooMany { count, limit });
        }
        let mut headers = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let (name, values) = (block.text()?, block.text()?);
            if name.is_empty() || name.chars().any(|c| c.is_ascii_uppercase() || c.is_control()) {
                return Err(BadHeaders::Name(name.to_owned()));
            }
            if !names.insert(name) {
                return Err(BadHeaders::Twice(name.to_owned()));
            }
            headers.push((name.to_owned(), values.to_owned()));
        }
        if block.0.is_empty() { Ok(Self(headers)) } else { Err(BadHeaders::Surplus) }
    }

    /// The block that reads back as these headers.
    pub fn block(&self) -> Vec<u8> {
        let mut block = number(self.0.len()).to_vec();
        for text in self.0.iter().flat_map(|(name, values)| [name, values]) {
            block.extend(number(text.len()));
            block.extend(text.as_bytes());
        }
        block
    }
}

/// What is still to be read.
struct Block<'a>(&'a [u8]);

impl<'a> Block<'a> {
    fn number(&mut self) -> Result<u32, BadHeaders> {
        let (number, rest) = self.0.split_first_chunk().ok_or(BadHeaders::CutShort)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    fn text(&mut self) -> Result<&'a str, BadHeaders> {
        let length = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(BadHeaders::CutShort)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_| BadHeaders::NotText)
    }
}

fn number(of: usize) -> [u8; 4] {
    let [.., a, b, c, d] = of.to_be_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(words: &[&str]) -> Vec<u8> {
        let mut block = number(words.len() / 2).to_vec();
        for word in words {
            block.extend(number(word.len()));
            block.extend(word.bytes());
        }
        block
    }

    #[test]
    fn names_are_found_in_any_case_and_values_come_one_by_one() {
        let headers = Headers::new().with("streamType", "error").with("Via", "a").with("via", "b");
        assert_eq!(headers.get("StreamType"), Some("error"));
        assert_eq!(headers.all("via").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(headers.get("port"), None);
        assert_eq!(headers.block(), block(&["streamtype", "error", "via", "a\0b"]));
    }

    #[test]
    fn a_block_that_is_not_as_it_should_be_is_refused_with_words() {
        let refused = |block: &[u8]| Headers::parse(block, 2).unwrap_err().to_string();
        assert_eq!(refused(b"\0\0\0"), "it ends within a header");
        assert_eq!(refused(b"\0\0\0\x01\0\0\0\x05via"), "it ends within a header");
        assert_eq!(refused(b"\0\0\0\x01\xff\xff\xff\xffvia"), "it ends within a header");
        assert_eq!(refused(b"\0\0\0\0via"), "it goes on after its last header");
        assert_eq!(refused(&[0xff; 8]), "it has 4294967295 headers; at most 2 are taken");
        assert_eq!(refused(&block(&["via", "a", "via", "b"])), "the name \"via\" is there twice");
        assert_eq!(refused(b"\0\0\0\x01\0\0\0\x01\xff\0\0\0\0"), "it is not UTF-8");
        for name in ["", "Via", "v\0a"] {
            let said = refused(&block(&[name, "a"]));
            assert_eq!(said, BadHeaders::Name(name.to_owned()).to_string());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(pairs in prop::collection::vec(("[a-z-]{1,9}", ".*"), 0..9)) {
            let headers = pairs.iter().fold(Headers::new(), |all, (name, value)| {
                all.with(name, value)
            });
            prop_assert_eq!(Headers::parse(&headers.block(), 9).unwrap(), headers);
        }

        #[test]
        fn no_block_panics(bytes: Vec<u8>) {
            if let Ok(headers) = Headers::parse(&bytes, 100) {
                prop_assert_eq!(headers.block(), bytes);
            }
        }
    }
}
