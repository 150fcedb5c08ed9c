//! The home of a user, from the `/etc/passwd` of whatever is in the container: it becomes a variable
//! of the environment, so it is an absolute path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for uid in [0, 1, 1000, u32::MAX] {
        let home = shim::program::home(bytes, uid);
        assert!(home.starts_with('/') && !home.contains(['\n', ':']), "{home:?}");
    }
});
