//! An image's config: a variable has a name, and nobody is root but by the number 0.
#![no_main]

use images::User;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(parsed) = images::parse_config(bytes) else { return };
    let config = parsed.config;
    assert!(config.env.iter().all(|entry| entry.find('=').is_some_and(|at| at > 0)));
    match config.user() {
        Ok(None) => assert!(config.user.is_empty()),
        Ok(Some(User::Uid(0))) => {
            let user = config.user.split(':').next().unwrap_or_default();
            assert!(!user.is_empty() && user.bytes().all(|b| b == b'0'), "{user:?}");
        }
        Ok(Some(User::Uid(uid))) => assert_ne!(uid, u32::MAX),
        Ok(Some(User::Name(name))) => assert!(!name.bytes().all(|b| b.is_ascii_digit())),
        Err(_) => {}
    }
});
