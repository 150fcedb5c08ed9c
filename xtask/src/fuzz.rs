//! The fuzz targets, built as `cargo fuzz` builds them but without it, and run one after the other.
//! `cargo xtask fuzz [SECONDS] [TARGET...]`; it needs the nightly toolchain, and root for layers.
//!
//! The seeds of `fuzz/corpus` are only read. What a run finds beyond them stays in the target
//! directory, where the next run begins with it; so does an input that made a target crash.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// For each target, where nothing else is said.
const SECONDS: u32 = 10;
/// What one input may take: a second is already a thousand times more than usual.
const LIMITS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=2048"];
/// As `cargo fuzz` has them: counters for the fuzzer to see where it got, and the address sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address";

/// Runs the targets that are named, or all.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let (seconds, names) = match arguments {
        [first, names @ ..] if first.parse::<u32>().is_ok() => (first.parse(), names),
        names => (Ok(SECONDS), names),
    };
    let seconds = seconds.map_err(|error| error.to_string())?;
    let targets = chosen(names)?;
    let place = Place::new();
    place.build(&targets)?;
    let crashed: Vec<String> =
        targets.iter().filter_map(|target| place.fuzz(target, seconds).err()).collect();
    if crashed.is_empty() { Ok(()) } else { Err(format!("\n  {}", crashed.join("\n  "))) }
}

/// The targets by their files, so that none is forgotten.
fn chosen(names: &[&str]) -> Result<Vec<String>, String> {
    let dir = crate::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut all: Vec<String> = entries.filter_map(|entry| stem(entry.ok()?.path())).collect();
    all.sort();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|known| known == *name)) {
        return Err(format!("there is no target {unknown:?}, but {}", all.join(", ")));
    }
    all.retain(|target| names.is_empty() || names.contains(&target.as_str()));
    Ok(all)
}

/// Where things are.
struct Place {
    fuzz: PathBuf,
    target: PathBuf,
    /// The platform: the flags must not reach build scripts, and so it has to be named.
    platform: String,
}

impl Place {
    fn new() -> Self {
        let fuzz = crate::root().join("fuzz");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| fuzz.join("target"), Into::into);
        let target = env::current_dir().unwrap_or_default().join(target);
        Self { fuzz, target, platform: format!("{}-unknown-linux-gnu", env::consts::ARCH) }
    }

    fn build(&self, targets: &[String]) -> Result<(), String> {
        let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "-V"]).output();
        if !nightly.is_ok_and(|out| out.status.success()) {
            return Err("it needs the nightly toolchain: rustup toolchain install nightly".into());
        }
        self.take_versions()?;
        let mut cargo = Command::new("rustup");
        cargo.args(["run", "nightly", "cargo", "build", "--quiet", "--release"]);
        cargo.args(["--target", &self.platform]).args(targets.iter().flat_map(|t| ["--bin", t]));
        cargo.current_dir(&self.fuzz).env("CARGO_TARGET_DIR", &self.target).env("RUSTFLAGS", FLAGS);
        match cargo.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("building the targets ended with {status}")),
            Err(error) => Err(format!("rustup cannot be run: {error}")),
        }
    }

    /// What is fuzzed is what is shipped: the versions of the project's own lock file. Cargo adds
    /// the fuzzer's.
    fn take_versions(&self) -> Result<(), String> {
        let (from, to) = (crate::root().join("Cargo.lock"), self.fuzz.join("Cargo.lock"));
        let age = |path: &Path| fs::metadata(path).and_then(|it| it.modified());
        let is_older = match (age(&to), age(&from)) {
            (Ok(to), Ok(from)) => to < from,
            _ => true,
        };
        let copied = if is_older { fs::copy(&from, &to).map(|_| ()) } else { Ok(()) };
        copied.map_err(|error| format!("copying {}: {error}", from.display()))
    }

    /// Runs one target; the error tells how to see its crash again.
    fn fuzz(&self, target: &str, seconds: u32) -> Result<(), String> {
        let binary = self.target.join(&self.platform).join("release").join(target);
        let found = self.made("corpus", target)?;
        let crashes = self.made("artifacts", target)?;
        let scratch = Scratch::new()?;
        let run = Command::new(&binary)
            .args([&found, &self.fuzz.join("corpus").join(target)])
            .args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .arg("-print_final_stats=1")
            .env("TMPDIR", &scratch.0)
            .output()
            .map_err(|error| format!("{target} cannot be run: {error}"))?;
        let said = String::from_utf8_lossy(&run.stderr);
        if run.status.success() {
            println!("   {target:20} {}", summary(&said));
            return Ok(());
        }
        let log = crashes.join("log");
        fs::write(&log, said.as_bytes()).map_err(|e| format!("{}: {e}", log.display()))?;
        println!("   {target:20} CRASHED");
        let (binary, crashes) = (binary.display(), crashes.display());
        Err(format!("{target}: {}\n    see {crashes}, and run {binary} FILE", reason(&said)))
    }

    fn made(&self, kind: &str, target: &str) -> Result<PathBuf, String> {
        let dir = self.target.join(kind).join(target);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(dir)
    }
}

/// A directory for what targets write, in memory where that can be; gone at the end of a run.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        let shared = Path::new("/dev/shm");
        let parent = if shared.is_dir() { shared.to_owned() } else { env::temp_dir() };
        let dir = parent.join(format!("podbay-fuzz-{}", process::id()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} is left behind: {error}", self.0.display());
        }
    }
}

/// How far a run got: executions, and places of the code that were reached.
fn summary(said: &str) -> String {
    let stat = |name: &str| {
        said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned()
    };
    let executed = stat("stat::number_of_executed_units:");
    let rate = stat("stat::average_exec_per_sec:");
    let covered = said.lines().rev().find_map(|line| line.split(" cov: ").nth(1));
    let covered = covered.and_then(|rest| rest.split(' ').next()).unwrap_or("?");
    format!("{executed:>9} runs, {rate:>6} a second, {covered:>5} places reached")
}

/// The line that says what went wrong.
fn reason(said: &str) -> &str {
    let mut lines = said.lines().skip_while(|line| !line.contains(" panicked at "));
    let panic = lines.nth(1);
    let error = || said.lines().find(|line| line.contains("ERROR: "));
    panic.or_else(error).unwrap_or("it ended without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_by_its_statistics_and_a_crash_by_its_reason() {
        let said = "#2\tINITED cov: 7 ft: 8 corp: 1/1b\n#9\tDONE   cov: 31 ft: 40 corp: 5/9b\n\
            stat::number_of_executed_units: 900\nstat::average_exec_per_sec:     90\n";
        assert_eq!(summary(said), "      900 runs,     90 a second,    31 places reached");
        let panic = "x\nthread '<unnamed>' (7) panicked at a.rs:1:2:\nno such line\nmore";
        assert_eq!(reason(panic), "no such line");
        assert_eq!(reason("==1== ERROR: libFuzzer: timeout"), "==1== ERROR: libFuzzer: timeout");
    }

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let fuzz = crate::root().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let targets = chosen(&[]).unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
            let seeds = fs::read_dir(fuzz.join("corpus").join(&target)).map(Iterator::count);
            assert!(seeds.is_ok_and(|count| count > 0), "{target} has no seeds");
        }
        assert!(chosen(&["none such"]).is_err());
    }
}
