//! Which devices the processes of a cgroup may use, and the words in which version 1 is told.

use std::{fmt, io, path::Path};

use super::file;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub allow: bool,
    /// `b`, `c`, or `a` for both; then the numbers count for nothing.
    pub kind: char,
    /// `None` for all.
    pub major: Option<i64>,
    pub minor: Option<i64>,
    /// Of the letters `r`, `w` and `m` (to make a node).
    pub access: String,
}

impl Device {
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let name = if self.allow { "devices.allow" } else { "devices.deny" };
        file::write(&dir.join(name), &self.to_string())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let Self { kind, access, .. } = self;
        match kind {
            // Only alone it sets the cgroup free of, or bound by, the list.
            'a' => f.write_str("a"),
            kind => write!(f, "{kind} {}:{} {access}", number(self.major), number(self.minor)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_in_the_kernels_words() {
        let rule = |kind, major, minor| {
            Device { allow: true, kind, major, minor, access: "rw".to_owned() }.to_string()
        };
        assert_eq!(rule('c', Some(1), Some(3)), "c 1:3 rw");
        assert_eq!(rule('b', Some(8), None), "b 8:* rw");
        assert_eq!(rule('a', None, None), "a");
    }
}
