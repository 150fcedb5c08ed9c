//! Content digests, `sha256:` and 64 hex digits. The registered `sha512` is left out: no registry
//! in use serves it. The strict form is what keeps a digest from being a path (CVE-2024-3727).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::hex;

/// A digest was not `sha256:` and 64 lowercase hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: it must be sha256: and 64 lowercase hex digits")]
pub struct BadDigest(String);

/// The SHA-256 of some content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest whose hash is these bytes.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", hex(&hash)))
    }

    /// With its algorithm: `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without its algorithm: 64 hex digits, fit for a file name.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let good = text.strip_prefix(PREFIX).is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        if good { Ok(Self(text.to_owned())) } else { Err(BadDigest(text.to_owned())) }
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;

    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_and_64_hex_digits_are_a_digest() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Digest>().unwrap().hex(), "0f".repeat(32));
        for bad in ["", "sha256:", "sha256:../../x", "sha512:00", &text[1..], &text.to_uppercase()]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
