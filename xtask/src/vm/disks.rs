//! The disk that carries what is to be tested into the machine: laid out as the project is, so that its
//! scripts run there as they run here.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{job::Needs, place::Place, progress::Progress, tests};
use crate::{
    children::{family, finish, make_disk},
    files::{self, take},
    package, programs,
};

/// In bytes; holes, until something is written.
const SIZE: u64 = 4 << 30;

/// Of `target/conformance`.
const CONFORMANCE: [&str; 3] = ["bin", "images", "packages/root/usr/bin"];

/// What a job is given.
pub(super) struct Cargo<'a> {
    pub needs: Needs,
    pub tests: &'a [String],
    /// What the machine reads first.
    pub order: String,
}

/// Makes it: our programs, the scripts and the files of `dist`; and if it is needed, or just there,
/// what `conformance/setup` makes; and if they are needed, the package, and the tests of packages.
pub(super) fn programs(place: &Place, cargo: &Cargo<'_>) -> Result<PathBuf, String> {
    let bins = build(cargo.needs.faults)?;
    let (stage, disk) = (place.own("programs"), place.own("programs.img"));
    for name in programs::ALL {
        take(&bins.join(name), &stage.join("bin").join(name))?;
    }
    for name in ["vm", "conformance", "dist"] {
        take(&crate::root().join(name), &stage.join(name))?;
    }
    if cargo.needs.package {
        let package = package::make(&place.own("package"), &bins)?;
        take(&package, &stage.join("package/podbay.deb"))?;
    }
    take_conformance(&stage, cargo.needs.conformance)?;
    if !cargo.tests.is_empty() {
        tests::take(&stage, cargo.tests)?;
    }
    files::write(&stage.join("order"), &cargo.order)?;
    make_disk(&stage, &disk, SIZE)?;
    files::remove(&stage)?;
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

fn build(faults: bool) -> Result<PathBuf, String> {
    let progress = Progress::begin("building podbay; the first time takes some minutes");
    let bins = programs::build(faults)?;
    progress.end("it is built");
    Ok(bins)
}
