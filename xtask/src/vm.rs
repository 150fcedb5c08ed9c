//! `cargo xtask vm JOB [ARGUMENT...]`: runs one of the scripts of `vm/jobs` in a machine of its own,
//! a Debian with systemd, cgroup v2 and AppArmor, whatever the host has of these. `docs/testing-in-a-vm.md`
//! tells people how to use it.
//!
//! Nothing is written but beneath `target/vm`, and nothing outlives this program ([`children`]).

mod accel;
mod cut;
mod debian;
mod disks;
mod image;
mod job;
mod machine;
mod place;
mod progress;
mod tests;

use std::{fs, process::ExitCode, time::Instant};

use disks::Cargo;
use job::{Job, Needs};
use place::Place;

use crate::files::at;

/// Gives the exit code of the job.
pub(crate) fn run(arguments: &[&str]) -> ExitCode {
    let done = match arguments {
        [] | ["help" | "--help" | "-h"] => return help(),
        ["image"] => image().map(|()| 0),
        ["shell"] => shell().map(|()| 0),
        ["all"] => all().map(|()| 0),
        [name, arguments @ ..] => job(name, arguments),
    };
    done.map_or_else(
        |why| {
            eprintln!("xtask: vm failed: {why}");
            ExitCode::from(CANNOT)
        },
        ExitCode::from,
    )
}

/// What `timeout`, `env` and `nohup` say when it is they who failed.
const CANNOT: u8 = 125;

fn help() -> ExitCode {
    println!("cargo xtask vm JOB [ARGUMENT...] | all | shell | image\n");
    println!("  {:12} the jobs of vm/all, as CI runs them", "all");
    println!("  {:12} a login as root on the machine's console; `poweroff` ends it", "shell");
    println!("  {:12} makes the machine's disk, and starts nothing", "image");
    for (name, about) in Job::all() {
        println!("  {name:12} {about}");
    }
    println!("\nit says what the job says, and ends as it ends; files are in target/vm/out/JOB");
    ExitCode::from(2)
}

/// The jobs that CI runs, one after the other, up to the first that fails.
pub(crate) fn all() -> Result<(), String> {
    let path = crate::root().join("vm/all");
    let list = fs::read_to_string(&path).map_err(at("reading", &path))?;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, ref arguments @ ..] = words[..] else { continue };
        let begun = Instant::now();
        match job(name, arguments)? {
            0 => println!("vm: {line}: passed, after {} s", begun.elapsed().as_secs()),
            status => return Err(format!("{line} ended with {status}; see target/vm/out/{name}")),
        }
    }
    Ok(())
}

fn image() -> Result<(), String> {
    let place = Place::new()?;
    let image = image::ready(&place)?;
    println!("{}", image.disk.display());
    Ok(())
}

fn job(name: &str, arguments: &[&str]) -> Result<u8, String> {
    let job = Job::find(name, arguments)?;
    let place = Place::new()?;
    let image = image::ready(&place)?;
    let cargo = Cargo { needs: job.needs, tests: &job.tests, order: job.order() };
    let programs = disks::programs(&place, &cargo)?;
    machine::work(&place, &image, &programs, &job)
}

fn shell() -> Result<(), String> {
    let place = Place::new()?;
    let image = image::ready(&place)?;
    let needs = Needs { package: true, ..Needs::default() };
    let cargo = Cargo { needs, tests: &[], order: String::new() };
    let programs = disks::programs(&place, &cargo)?;
    machine::shell(&place, &image, &programs)
}
