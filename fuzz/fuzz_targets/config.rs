//! The configuration file: what is accepted has absolute paths and a cgroup that does not climb.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match config::parse(text, "a file") {
        Ok(config) => {
            for path in [&config.root, &config.state, &config.socket] {
                assert!(path.is_absolute());
            }
            assert!(config.handlers.contains_key(&config.default_handler));
            let parent = &config.cgroups.parent;
            assert!(!parent.split('/').any(|part| matches!(part, "" | "." | "..")), "{parent:?}");
        }
        Err(error) => assert!(error.to_string().starts_with("a file: ")),
    }
});
