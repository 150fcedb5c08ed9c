//! Names of slices, and where systemd has the cgroup of one: `a-b.slice` is below `a.slice`. Pure.

use std::path::{Path, PathBuf};

/// The longest name of a unit, and what its characters may be (`unit-name.c`).
const LONGEST: usize = 255;
const SUFFIX: &str = ".slice";
const ROOT: &str = "-.slice";

/// What a cgroup must not be called, since a file of a cgroup may be (`cg_escape`).
const CONTROLLERS: [&str; 8] =
    ["cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"];

/// The name of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice(String);

/// A text that names no slice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no slice of systemd: {why}")]
pub struct BadSlice {
    pub text: String,
    pub why: &'static str,
}

impl Slice {
    /// A slice by its name, `a-b.slice`.
    ///
    /// # Errors
    /// If systemd would not have it.
    pub fn named(text: &str) -> Result<Self, BadSlice> {
        let bad = |why| Err(BadSlice { text: text.to_owned(), why });
        let Some(prefix) = text.strip_suffix(SUFFIX) else {
            return bad("it does not end in .slice");
        };
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\".contains(&b);
        if text == ROOT {
            return Ok(Self(text.to_owned()));
        }
        match prefix {
            "" => bad("it has nothing before .slice"),
            _ if text.len() > LONGEST => bad("it is longer than 255 characters"),
            _ if !prefix.bytes().all(is_plain) => {
                bad("other characters than letters, digits and :-_.\\ are in it")
            }
            _ if prefix.split('-').any(str::is_empty) => {
                bad("a dash is at its beginning or end, or beside another")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// A slice as kubelets name it, by the whole path of its cgroup, or by its name alone.
    ///
    /// # Errors
    /// If the last part is no slice, or the path is not that slice's.
    pub fn at(path: &Path) -> Result<Self, BadSlice> {
        let text = path.to_string_lossy();
        let slice = Self::named(text.rsplit('/').next().unwrap_or_default())
            .map_err(|bad| BadSlice { text: text.to_string(), ..bad })?;
        if !text.contains('/') || slice.path() == path {
            return Ok(slice);
        }
        Err(BadSlice { text: text.into(), why: "that is not where systemd has this slice" })
    }

    /// The slice that stands for the cgroup `a/b`: `a-b.slice`.
    ///
    /// # Errors
    /// If there is none.
    pub fn standing_for(parent: &str) -> Result<Self, BadSlice> {
        if parent.ends_with(SUFFIX) {
            return Self::at(Path::new(parent));
        }
        Self::named(&format!("{}{SUFFIX}", parent.replace('/', "-")))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where its cgroup is, absolute in the hierarchy.
    pub fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        if self.0 == ROOT {
            return path;
        }
        let prefix = self.0.strip_suffix(SUFFIX).unwrap_or(&self.0);
        for (dash, _) in prefix.match_indices('-') {
            path.push(escaped(&format!("{}{SUFFIX}", &prefix[..dash])));
        }
        path.push(escaped(&self.0));
        path
    }
}

/// The name of a unit as that of a cgroup.
fn escaped(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let is_file =
        name.starts_with(['_', '.']) || name.starts_with("cgroup.") || CONTROLLERS.contains(&stem);
    if is_file { format!("_{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: &str) -> String {
        Slice::named(name).unwrap().path().display().to_string()
    }

    #[test]
    fn a_slice_is_below_those_that_its_dashes_name() {
        assert_eq!(path("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(
            path("kubepods-burstable-pod1_2.slice"),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
        );
        assert_eq!(path("system.slice"), "/system.slice");
        assert_eq!(path("-.slice"), "/");
    }

    #[test]
    fn a_name_that_a_file_of_a_cgroup_could_have_is_escaped_as_systemd_does() {
        assert_eq!(path("memory-x.slice"), "/_memory.slice/memory-x.slice");
        assert_eq!(path("cgroup.x.slice"), "/_cgroup.x.slice");
        assert_eq!(path("_a.slice"), "/__a.slice");
    }

    #[test]
    fn what_systemd_would_not_have_is_no_slice() {
        let long = format!("{}.slice", "a".repeat(250));
        for bad in [
            "",
            "a",
            ".slice",
            "a.scope",
            "-a.slice",
            "a-.slice",
            "a--b.slice",
            "a b.slice",
            "a@b.slice",
            "a/b.slice",
            "ä.slice",
            &long,
        ] {
            assert!(Slice::named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_may_be_named_by_its_whole_path_if_that_is_its_path() {
        let at = |path: &str| Slice::at(Path::new(path)).map(|slice| slice.0);
        assert_eq!(at("a-b.slice").unwrap(), "a-b.slice");
        assert_eq!(at("/a.slice/a-b.slice").unwrap(), "a-b.slice");
        assert_eq!(at("/test.slice").unwrap(), "test.slice");
        for bad in ["/a-b.slice", "/x.slice/a-b.slice", "a.slice/a-b.slice", "/a.slice/", "/x"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_parent_that_is_configured_stands_for_a_slice() {
        let name = |parent| Slice::standing_for(parent).map(|slice| slice.0);
        assert_eq!(name("podbay").unwrap(), "podbay.slice");
        assert_eq!(name("a/b").unwrap(), "a-b.slice");
        assert_eq!(name("podbay-x").unwrap(), "podbay-x.slice");
        assert_eq!(name("podbay.slice").unwrap(), "podbay.slice");
        assert!(name("a b").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Slice::named(&text);
            let _ = Slice::at(Path::new(&text));
            let _ = Slice::standing_for(&text);
        }

        #[test]
        fn the_path_of_a_slice_names_it(parts in prop::collection::vec("[a-z0-9_.:]{1,6}", 1..5)) {
            let name = format!("{}.slice", parts.join("-"));
            let slice = Slice::named(&name).unwrap();
            prop_assert_eq!(slice.path().components().count(), parts.len() + 1);
            prop_assert_eq!(Slice::named(slice.name()).unwrap(), slice.clone());
            if !slice.path().to_string_lossy().contains("/_") {
                prop_assert_eq!(Slice::at(&slice.path()).unwrap(), slice);
            }
        }
    }
}
