//! The checks of the project, as `cargo xtask NAME`. `cargo xtask ci` is all of them in order.

mod arrows;
mod children;
mod docs;
mod files;
mod fuzz;
mod package;
mod programs;
mod sizes;
mod vm;
mod words;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// A check: its name, what it is for, and how it is done.
struct Check {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<(), String>,
}

/// In the order of `ci`: what is quick to fail comes first.
const CHECKS: [Check; 12] = [
    Check { name: "format", about: "every file is as rustfmt leaves it", run: format },
    Check { name: "arrows", about: "rooms know only those that they may know", run: arrows::check },
    Check { name: "sizes", about: "functions and files are small", run: sizes::check },
    Check {
        name: "words",
        about: "nothing is in the tree that is not the project's",
        run: words::check,
    },
    Check { name: "docs", about: "pages made from the code are of today", run: docs::check },
    Check { name: "clippy", about: "no lint speaks", run: clippy },
    Check {
        name: "deny",
        about: "dependencies are allowed, licensed and not known to be broken",
        run: deny,
    },
    Check { name: "test", about: "unit and room tests", run: test },
    Check { name: "e2e", about: "the whole daemon, from outside", run: e2e },
    Check { name: "conformance", about: "critest, against the reviewed list", run: conformance },
    Check { name: "vm", about: "what only a machine of its own shows", run: vm },
    Check {
        name: "fuzz",
        about: "what reads the bytes of others, a minute each",
        run: fuzz::check,
    },
];

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let names: Vec<&str> = match wanted.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => return help(),
        ["fuzz", ref arguments @ ..] => return end("fuzz", fuzz::run(arguments)),
        ["package"] => return end("package", package::run()),
        ["vm", ref arguments @ ..] => return vm::run(arguments),
        ["ci"] => CHECKS.iter().map(|check| check.name).collect(),
        ref names => names.to_vec(),
    };
    for name in names {
        let Some(check) = CHECKS.iter().find(|check| check.name == name) else {
            eprintln!("xtask: there is no check {name:?}");
            return help();
        };
        let begun = std::time::Instant::now();
        println!("== {name}: {}", check.about);
        if let failed @ Err(_) = (check.run)() {
            return end(name, failed);
        }
        println!("== {name}: done, after {} s", begun.elapsed().as_secs());
    }
    ExitCode::SUCCESS
}

fn end(name: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {name} failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    println!("cargo xtask ci | NAME...\n");
    for check in &CHECKS {
        println!("  {:12} {}", check.name, check.about);
    }
    println!("\ncargo xtask fuzz [--jobs N] [SECONDS] [TARGET...]\n");
    println!("  what reads the bytes of others, against bytes made up; needs nightly");
    println!("\ncargo xtask package\n");
    println!("  a package for Debian and its like, in target/package");
    println!("\ncargo xtask vm JOB [ARGUMENT...] | shell | help\n");
    println!(
        "  a job in a machine of its own, with systemd, cgroup v2 and AppArmor; in ci, all of vm/all"
    );
    ExitCode::from(2)
}

/// The project's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent").to_owned()
}

/// Runs a command in the project's folder to its end.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(args).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {} ended with {status}", args.join(" "))),
        Err(error) => Err(format!("{program} cannot be run: {error}")),
    }
}

fn format() -> Result<(), String> {
    run("cargo", &["fmt", "--all", "--check"])
}

fn clippy() -> Result<(), String> {
    run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

fn deny() -> Result<(), String> {
    if Command::new("cargo")
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|out| !out.status.success())
    {
        run("cargo", &["install", "--quiet", "--locked", "cargo-deny@0.20.2"])?;
    }
    run("cargo", &["deny", "--log-level", "error", "check", "bans", "licenses", "sources"])
}

fn test() -> Result<(), String> {
    run("cargo", &["test", "--workspace", "--exclude", "e2e", "--quiet"])
}

fn e2e() -> Result<(), String> {
    // Some tests are crictl's clients.
    run("conformance/setup", &[])?;
    let faults = ["build", "--quiet", "--package", "daemon", "--features", "faults"];
    run("cargo", &faults)?;
    run(
        "cargo",
        &["build", "--quiet", "--package", "shim", "--package", "sandboxer", "--package", "ctl"],
    )?;
    run("cargo", &["test", "--package", "e2e"])
}

/// With what the stages before it have built.
fn vm() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = program.to_string_lossy();
    run("env", &["PODBAY_PROFILE=debug", &program, "vm", "all"])
}

fn conformance() -> Result<(), String> {
    run("conformance/setup", &[])?;
    run(
        "cargo",
        &["build", "--quiet", "--package", "daemon", "--package", "sandboxer", "--package", "shim"],
    )?;
    let against = ["PODBAY_PROFILE=debug", "conformance/against-podbay"];
    run("env", &against)?;
    let by_websocket = ["--websocket", "podbay", "runc"];
    run("env", &[&against[..], &by_websocket].concat())
}
