//! podbay-bench: drives any CRI socket over raw gRPC and prints what pods cost there, in one table.
//!
//! It starts no processes of its own (a crictl would cost more than what is measured), needs no
//! kubelet, and leaves nothing behind, also when it is interrupted. It is not a conformance test.

mod args;
mod crowd;
mod error;
mod held;
mod image;
mod measure;
mod pod;
mod process;
mod report;
mod rounds;
mod summary;
mod sweep;
mod table;
mod target;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use error::Error;
use measure::Record;
use pod::Recipe;
use target::Target;

/// What a target gave when it was measured.
type Measured<'a> = (&'a Target, Record);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("podbay-bench: {}", error.chain());
            error.exit_code()
        }
    }
}

async fn run(args: &Args) -> Result<String, Error> {
    let mut targets = Vec::new();
    for socket in args.sockets() {
        targets.push(Target::open(socket, args.daemon_of(socket)).await?);
    }
    for target in &targets {
        sweep::sweep(target).await?;
    }
    let outcome = tokio::select! {
        outcome = measured(args, &targets) => outcome,
        () = interrupted() => Err(Error::Interrupted),
    };
    // Whatever happened; and what went wrong first is what is told.
    let left = tokio::select! {
        cleaned = clean(args, &targets) => cleaned,
        () = interrupted() => return Err(Error::Impatient),
    };
    let measured = outcome?;
    left?;
    Ok(if args.json { report::json(args, &measured) } else { report::text(args, &measured) })
}

/// The whole measurement, in the order of the table. Rounds go from target to target, so that a
/// machine that becomes slow is slow for all.
async fn measured<'a>(args: &Args, targets: &'a [Target]) -> Result<Vec<Measured<'a>>, Error> {
    let logs = tempfile::Builder::new().prefix("podbay-bench-").tempdir().map_err(Error::Logs)?;
    let mut measured = Vec::new();
    let mut recipes = Vec::new();
    for target in targets {
        let image = image::choose(args, target).await?;
        measured.push((target, Record::new(image.name.clone())));
        // One each: two targets may have the same name.
        let logs = logs.path().join(recipes.len().to_string());
        std::fs::create_dir(&logs).map_err(Error::Logs)?;
        recipes.push(Recipe::new(args, image, &logs));
    }
    rounds::run(args, &mut measured, &recipes).await?;
    crowd::run(args, &mut measured, &recipes).await?;
    held::run(args, &mut measured, &recipes).await?;
    Ok(measured)
}

/// Removes everything that was made, at every target, also when one of them refuses.
async fn clean(args: &Args, targets: &[Target]) -> Result<(), Error> {
    let mut cleaned = Ok(());
    for target in targets {
        let swept = sweep::sweep(target).await;
        let unmade = image::unmake(args, target).await;
        cleaned = cleaned.and(swept).and(unmade);
    }
    cleaned
}

/// Ends when a person or the system asks us to.
async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
