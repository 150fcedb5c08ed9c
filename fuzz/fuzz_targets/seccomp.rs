//! A seccomp profile: what is accepted is written as it was read, so that a runtime enforces what
//! was checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::parse_seccomp;

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = parse_seccomp(bytes) else { return };
    for rule in profile.syscalls().iter().flatten() {
        assert!(!rule.names().is_empty());
        assert!(rule.args().iter().flatten().all(|arg| arg.index() < 6));
    }
    let written = serde_json::to_vec(&profile).expect("a profile can be written");
    assert_eq!(parse_seccomp(&written).expect("a written profile can be read"), profile);
});
