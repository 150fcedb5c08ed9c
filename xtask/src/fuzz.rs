//! The fuzz targets, built as `cargo fuzz` builds them but without it.
//! `cargo xtask fuzz [--jobs N] [SECONDS] [TARGET...]`; it needs the nightly toolchain, and root for
//! layers. `cargo xtask ci` runs all of them for a minute each, as many at a time as there are cores.
//!
//! The seeds of `fuzz/corpus` are only read. What a run finds beyond them stays in the target
//! directory, where the next run begins with it; so does an input that made a target crash.

use std::{
    env, fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{Mutex, PoisonError},
    thread,
};

/// For each target, where nothing else is said.
const SECONDS: u32 = 10;
/// The same, in CI.
const SECONDS_IN_CI: u32 = 60;
/// What one input may take: a second is already a thousand times more than usual.
const LIMITS: [&str; 2] = ["-timeout=20", "-rss_limit_mb=2048"];
/// As `cargo fuzz` has them: counters for the fuzzer to see where it got, and the address sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address";

/// Runs the targets that are named, or all, one after the other unless there are to be more at a time.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let mut words = arguments.to_vec();
    let jobs = take_jobs(&mut words)?;
    let seconds = words.first().and_then(|first| first.parse().ok());
    let names = &words[usize::from(seconds.is_some())..];
    Round { targets: chosen(names)?, seconds: seconds.unwrap_or(SECONDS), jobs }.run()
}

/// All targets, as CI runs them. A machine that cannot is no reason to fail, but one to be told of.
pub(crate) fn check() -> Result<(), String> {
    if !has_nightly() {
        println!("!! SKIPPED: nothing is fuzzed here, since there is no nightly toolchain.");
        println!("!! A machine of CI has to have one: rustup toolchain install nightly");
        return Ok(());
    }
    let jobs = thread::available_parallelism().map_or(1, NonZero::get);
    Round { targets: chosen(&[])?, seconds: SECONDS_IN_CI, jobs }.run()
}

/// Takes `--jobs N` out of the arguments.
fn take_jobs(words: &mut Vec<&str>) -> Result<usize, String> {
    let Some(at) = words.iter().position(|word| *word == "--jobs") else { return Ok(1) };
    let number = words.get(at + 1).and_then(|word| word.parse().ok()).filter(|jobs| *jobs > 0);
    let jobs = number.ok_or("--jobs wants a number: how many targets are run at a time")?;
    words.drain(at..=at + 1);
    Ok(jobs)
}

/// What is to be run, and how.
struct Round {
    targets: Vec<String>,
    seconds: u32,
    jobs: usize,
}

impl Round {
    fn run(self) -> Result<(), String> {
        let place = Place::new();
        println!("   building {} targets; the first time takes some minutes", self.targets.len());
        place.build(&self.targets)?;
        Scratch::sweep();
        let crashes = self.fuzz(&place);
        if crashes.is_empty() {
            return Ok(());
        }
        let count = format!("{} of {} targets crashed", crashes.len(), self.targets.len());
        Err(format!("{count}\n\n{}", crashes.join("\n\n")))
    }

    /// Gives the reports of those that crashed; the others are run all the same.
    fn fuzz(&self, place: &Place) -> Vec<String> {
        let (count, jobs) = (self.targets.len(), self.jobs.min(self.targets.len()));
        println!("   running each for {} s, {jobs} at a time", self.seconds);
        let (left, ended) = (Mutex::new(self.targets.iter()), Mutex::new((0, Vec::new())));
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(target) = next() {
                let result = place.fuzz(target, self.seconds);
                let (number, crashes) = &mut *ended.lock().unwrap_or_else(PoisonError::into_inner);
                *number += 1;
                let said = result.as_deref().unwrap_or("CRASHED; the report is below");
                println!("   {number:>2} of {count}  {target:20} {said}");
                crashes.extend(result.err());
            }
        };
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(work);
            }
        });
        ended.into_inner().unwrap_or_else(PoisonError::into_inner).1
    }
}

fn has_nightly() -> bool {
    let asked = Command::new("rustup").args(["run", "nightly", "rustc", "-V"]).output();
    asked.is_ok_and(|out| out.status.success())
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
        if !has_nightly() {
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

    /// Runs one target. Gives how far it got, or the report of its crash.
    fn fuzz(&self, target: &str, seconds: u32) -> Result<String, String> {
        let binary = self.target.join(&self.platform).join("release").join(target);
        let found = self.made("corpus", target)?;
        let crashes = self.made("artifacts", target)?;
        let scratch = Scratch::new(target)?;
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
            return Ok(summary(&said));
        }
        let log = crashes.join("log");
        fs::write(&log, said.as_bytes()).map_err(|e| format!("{}: {e}", log.display()))?;
        Err(report(target, &binary, &log, &said))
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
    const PREFIX: &str = "podbay-fuzz-";

    fn new(target: &str) -> Result<Self, String> {
        let dir = Self::parent().join(format!("{}{}-{target}", Self::PREFIX, process::id()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self(dir))
    }

    fn parent() -> PathBuf {
        let shared = Path::new("/dev/shm");
        if shared.is_dir() { shared.to_owned() } else { env::temp_dir() }
    }

    /// Removes those of runs that were killed.
    fn sweep() {
        for entry in fs::read_dir(Self::parent()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| name.strip_prefix(Self::PREFIX));
            let pid = of.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                drop(Self(entry.path()));
            }
        }
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

/// What a person needs who reads of a crash: what went wrong, the input, how to see it again.
fn report(target: &str, binary: &Path, log: &Path, said: &str) -> String {
    let (binary, log) = (binary.display(), log.display());
    let after = |mark: &str| said.lines().find_map(|line| Some(line.split_once(mark)?.1.trim()));
    let mut lines = vec![format!("  {target}: {}", reason(said))];
    if let Some(input) = after("Test unit written to ") {
        lines.push(format!("    input: {input}"));
        // Where CI keeps nothing of a run but what it said.
        lines.extend(after("Base64: ").map(|bytes| format!("           in base64: {bytes}")));
        lines.push(format!("    again: {binary} {input}"));
    }
    lines.push(format!("    log:   {log}"));
    lines.push(format!("    When it is mended, keep the input as a seed in fuzz/corpus/{target}."));
    lines.join("\n")
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
    fn a_crash_is_reported_with_its_input_and_how_to_see_it_again() {
        let said = "thread '<unnamed>' (7) panicked at a.rs:1:2:\nno such line\n\
            artifact_prefix='/a/'; Test unit written to /a/crash-1\nBase64: AAE=\n";
        let told = report("layer", Path::new("/b/layer"), Path::new("/a/log"), said);
        assert!(told.starts_with("  layer: no such line\n    input: /a/crash-1\n"), "{told}");
        assert!(told.contains("AAE=") && told.contains("again: /b/layer /a/crash-1"), "{told}");
        let without = report("layer", Path::new("/b/layer"), Path::new("/a/log"), "killed");
        assert!(!without.contains("again:") && without.contains("/a/log"), "{without}");
    }

    #[test]
    fn how_many_are_run_at_a_time_can_be_said_anywhere() {
        let mut words = vec!["60", "--jobs", "3", "layer"];
        assert_eq!((take_jobs(&mut words), words), (Ok(3), vec!["60", "layer"]));
        assert_eq!(take_jobs(&mut vec!["layer"]), Ok(1));
        for wrong in [vec!["--jobs"], vec!["--jobs", "0"], vec!["--jobs", "layer"]] {
            assert!(take_jobs(&mut wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_is_built_and_has_few_seeds() {
        let fuzz = crate::root().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let targets = chosen(&[]).unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
            let seeds = fs::read_dir(fuzz.join("corpus").join(&target)).into_iter().flatten();
            let sizes: Vec<u64> =
                seeds.map(|seed| seed.unwrap().metadata().unwrap().len()).collect();
            assert!((1..50).contains(&sizes.len()), "{target} has {} seeds", sizes.len());
            assert!(sizes.iter().sum::<u64>() < 64 << 10, "{target} has large seeds");
        }
        assert!(chosen(&["none such"]).is_err());
    }
}
