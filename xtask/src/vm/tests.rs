//! The tests of packages, to be run in the machine: their programs, and those that they test. All are
//! where they would be if the machine had built them; what the tests know is this host's paths, to which
//! the machine makes links.

use std::{
    io::BufReader,
    path::{Path, PathBuf},
    process::Stdio,
};

use cargo_metadata::{Artifact, Message};

use super::progress::Progress;
use crate::{
    children::{alone, family, finish},
    files,
    programs::target,
};

/// Puts them on the disk, with a list: of each, the folder to run it in, and the program.
pub(super) fn take(stage: &Path, packages: &[String]) -> Result<(), String> {
    let progress = Progress::begin("building the tests");
    let built = build(packages)?;
    progress.end("they are built");
    for name in ["crates", "e2e"] {
        files::take(&crate::root().join(name), &stage.join(name))?;
    }
    let mut list = String::new();
    for artifact in &built {
        let Some(program) = &artifact.executable else { continue };
        carry(stage, program.as_std_path())?;
        if let Some(folder) = artifact.manifest_path.parent().filter(|_| artifact.profile.test) {
            list += &format!("{folder} {program}\n");
        }
    }
    files::write(&stage.join("tests"), list)?;
    let links = format!("PROJECT={:?}\nTARGET={:?}\n", crate::root(), target());
    files::write(&stage.join("links"), links)
}

fn build(packages: &[String]) -> Result<Vec<Artifact>, String> {
    let mut cargo = family("cargo");
    cargo.args(["test", "--no-run", "--quiet", "--message-format=json-render-diagnostics"]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.current_dir(crate::root()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut cargo = cargo.spawn().map_err(|error| format!("cargo cannot be run: {error}"))?;
    let output = cargo.stdout.take().ok_or("cargo has no output")?;
    let mut built = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message.map_err(|error| error.to_string())? {
            built.push(artifact);
        }
    }
    let status = cargo.wait().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(built)
    } else {
        Err(format!("building the tests ended with {status}"))
    }
}

/// Without what is only for debuggers, which is the most of it.
fn carry(stage: &Path, program: &Path) -> Result<(), String> {
    let below = program.strip_prefix(target()).map_err(|error| error.to_string())?;
    let to: PathBuf = stage.join("target").join(below);
    if let Some(dir) = to.parent() {
        files::make_dir(dir)?;
    }
    let mut strip = alone("KILL", "strip");
    strip.arg("--strip-debug").arg("-o").arg(to).arg(program);
    finish(strip, "strip")
}
