//! Paths inside a layer: no leading slash, no `.`, no `..`, no NUL, not too long. That they do not
//! leave through a link is the kernel's to see to, when they are opened.

/// The longest path, one less than the kernel's limit for its NUL.
pub const LONGEST: usize = 4095;
/// The longest name of the usual filesystems.
pub const LONGEST_NAME: usize = 255;

/// A path beneath a layer's root; empty for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Within(Vec<u8>);

impl Within {
    /// Reads a path as archives write it: `./a/b`, `/a/b` and `a//b/` are all `a/b`.
    pub fn parse(path: &[u8]) -> Result<Within, &'static str> {
        let mut clean = Vec::with_capacity(path.len());
        for name in path.split(|b| *b == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err("its path has a .. in it"),
                _ if name.len() > LONGEST_NAME => return Err("a name in its path is too long"),
                _ if name.contains(&0) => return Err("its path holds a NUL"),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(name);
        }
        if clean.len() > LONGEST { Err("its path is too long") } else { Ok(Within(clean)) }
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        &self.0[self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1)..]
    }

    /// The directory it is in.
    pub fn parent(&self) -> Within {
        let slash = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Within(self.0[..slash].to_vec())
    }

    /// The same directory with another last name.
    pub fn sibling(&self, name: &[u8]) -> Within {
        self.parent().join(name)
    }

    /// A name in it. The name must be a single, safe one.
    pub fn join(&self, name: &[u8]) -> Within {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Within(path)
    }

    /// All names in it, from the root down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_cleaned_or_refused() {
        let clean = |path: &str| Within::parse(path.as_bytes()).unwrap();
        assert_eq!(clean("./a//b/").as_bytes(), b"a/b");
        assert_eq!(clean("/etc/passwd").as_bytes(), b"etc/passwd");
        assert!(clean("./").is_root() && clean("").is_root() && clean("/").is_root());
        assert_eq!(clean("a/b/c").parent(), clean("a/b"));
        assert_eq!(clean("a/b/c").name(), b"c");
        assert!(clean("a").parent().is_root());
        for bad in ["../x", "a/../b", "a/..", "..", "a\0b", &"x".repeat(256), &"x/".repeat(3000)] {
            assert!(Within::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_has_a_way_up(path in prop::collection::vec(prop_oneof![
            Just(b'.'), Just(b'/'), Just(b'a'), any::<u8>()], 0..40)) {
            if let Ok(path) = Within::parse(&path) {
                prop_assert!(path.names().all(|n| !matches!(n, b"" | b"." | b"..")));
                prop_assert!(!path.as_bytes().starts_with(b"/"));
                prop_assert_eq!(Within::parse(path.as_bytes()).unwrap(), path);
            }
        }
    }
}
