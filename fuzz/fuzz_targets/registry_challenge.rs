//! `WWW-Authenticate`, as a foreign server sends it: what is found in it is bounded and has names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let found = registry::parse_challenge(text);
    assert!(found.len() <= 16);
    for challenge in found {
        assert!(!challenge.scheme.is_empty() && challenge.params.len() <= 32);
        for (name, _) in &challenge.params {
            assert!(!name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase()));
            assert!(challenge.param(name).is_none_or(|value| value.len() <= text.len()));
        }
    }
});
