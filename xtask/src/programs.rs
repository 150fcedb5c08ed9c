//! The programs of a release: which there are, and where they are built.

use std::{env, path::PathBuf};

use crate::children::{family, finish};

pub(crate) const ALL: [&str; 5] =
    ["podbayd", "podbay", "podbay-sandboxer", "podbay-shim", "podbay-pause"];
const PACKAGES: [&str; 4] = ["daemon", "shim", "sandboxer", "ctl"];

/// Builds them, unless `PODBAY_BIN_DIR` says where there are some. Gives their folder. With
/// `PODBAY_PROFILE=debug` they are those that tests have built already. With `faults` the daemon can be told
/// to fail, for tests.
pub(crate) fn build(faults: bool) -> Result<PathBuf, String> {
    if let Some(bins) = env::var_os("PODBAY_BIN_DIR") {
        return Ok(bins.into());
    }
    let mut cargo = family("cargo");
    let is_debug = env::var_os("PODBAY_PROFILE").is_some_and(|profile| profile == "debug");
    let (profile, folder) = if is_debug { ("dev", "debug") } else { ("release", "release") };
    cargo.args(["build", "--quiet", "--profile", profile]).current_dir(crate::root());
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    if faults {
        cargo.args(["--features", "daemon/faults"]);
    }
    finish(cargo, "cargo build")?;
    Ok(target().join(folder))
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    crate::root().join(target)
}
