//! The disk that carries what is to be tested into the machine: laid out as the project is, so that its
//! scripts run there as they run here.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{
    children::{family, finish, make_disk},
    place::{self, Place, at},
    progress::Progress,
    tests,
};

/// In bytes; holes, until something is written.
const SIZE: u64 = 4 << 30;

const PROGRAMS: [&str; 5] =
    ["podbayd", "podbay-shim", "podbay-pause", "podbay-sandboxer", "podbay"];
const PACKAGES: [&str; 4] = ["daemon", "shim", "sandboxer", "ctl"];

/// Of `target/conformance`.
const CONFORMANCE: [&str; 3] = ["bin", "images", "packages/root/usr/bin"];

/// What a job is given.
pub(super) struct Cargo<'a> {
    pub needs_conformance: bool,
    pub tests: &'a [String],
    /// What the machine reads first.
    pub order: String,
}

/// Makes it: our programs and the scripts; and if it is needed, or just there, what
/// `conformance/setup` makes; and the tests of packages.
pub(super) fn programs(place: &Place, cargo: &Cargo<'_>) -> Result<PathBuf, String> {
    let bins = build()?;
    let (stage, disk) = (place.own("programs"), place.own("programs.img"));
    for name in PROGRAMS {
        take(&bins.join(name), &stage.join("bin").join(name))?;
    }
    for name in ["vm", "conformance"] {
        take(&crate::root().join(name), &stage.join(name))?;
    }
    take_conformance(&stage, cargo.needs_conformance)?;
    if !cargo.tests.is_empty() {
        tests::take(&stage, cargo.tests)?;
    }
    place::write(&stage.join("order"), &cargo.order)?;
    make_disk(&stage, &disk, SIZE)?;
    place::remove(&stage)?;
    Ok(disk)
}

fn take_conformance(stage: &Path, needed: bool) -> Result<(), String> {
    if needed {
        let progress = Progress::begin("conformance/setup");
        finish(family(crate::root().join("conformance/setup")), "conformance/setup")?;
        progress.end("critest and its images are ready");
    }
    let all = CONFORMANCE.iter().map(|name| (tools().join(name), name));
    for (from, name) in all.filter(|(from, _)| from.exists()) {
        take(&from, &stage.join("target/conformance").join(name))?;
    }
    Ok(())
}

fn tools() -> PathBuf {
    let given = env::var_os("CONFORMANCE_OUT").map(PathBuf::from);
    given.unwrap_or_else(|| crate::root().join("target/conformance"))
}

/// Builds our programs, unless `PODBAY_BIN_DIR` says where there are some.
fn build() -> Result<PathBuf, String> {
    if let Some(bins) = env::var_os("PODBAY_BIN_DIR") {
        return Ok(bins.into());
    }
    let progress = Progress::begin("building podbay; the first time takes some minutes");
    let mut cargo = family("cargo");
    cargo.args(["build", "--quiet", "--release"]).current_dir(crate::root());
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    finish(cargo, "cargo build")?;
    progress.end("it is built");
    Ok(target().join("release"))
}

/// Where cargo builds.
pub(super) fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    crate::root().join(target)
}

/// Copies a file, or a folder with all in it. Links are kept as they are.
pub(super) fn take(from: &Path, to: &Path) -> Result<(), String> {
    let meta = fs::symlink_metadata(from).map_err(at("looking for", from))?;
    if let Some(dir) = to.parent() {
        place::make_dir(dir)?;
    }
    if meta.is_symlink() {
        let target = fs::read_link(from).map_err(at("reading", from))?;
        return std::os::unix::fs::symlink(target, to).map_err(at("linking", to));
    }
    if !meta.is_dir() {
        return fs::copy(from, to).map(drop).map_err(at("copying", from));
    }
    place::make_dir(to)?;
    for entry in fs::read_dir(from).map_err(at("listing", from))?.flatten() {
        take(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
