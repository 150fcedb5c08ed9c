//! Paths in a container, as text. Nothing is looked up.

/// The path made absolute, without `.`, `..`, doubled or trailing slashes.
pub(crate) fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a clean path is `above`, or lies below it.
pub(crate) fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clean_path_is_what_a_shell_would_call_it() {
        let table = [("", "/"), ("/", "/"), ("//a/./b/", "/a/b"), ("/../../etc", "/etc")];
        for (path, expected) in table.into_iter().chain([("a/../b", "/b"), ("/a/..", "/")]) {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert!(is_at_or_below("/proc/self", "/proc") && is_at_or_below("/proc", "/proc"));
        assert!(!is_at_or_below("/process", "/proc"));
    }

    proptest! {
        #[test]
        fn a_clean_path_has_nothing_left_to_clean(path in "[a./]{0,30}") {
            let once = clean(&path);
            prop_assert!(once.starts_with('/') && !once.split('/').any(|part| part == ".."));
            prop_assert_eq!(clean(&once), once);
        }
    }
}
