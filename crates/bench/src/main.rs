//! podbay-bench: drives any CRI socket over raw gRPC and prints what pods cost there, in one table.
//!
//! It starts no processes of its own (a crictl would cost more than what is measured), needs no
//! kubelet, and leaves nothing behind, also when it is interrupted. It is not a conformance test.

mod args;
mod column;
mod crowd;
mod error;
mod held;
mod image;
mod measure;
mod places;
mod pod;
mod process;
mod report;
mod rounds;
mod summary;
mod supervisors;
mod sweep;
mod table;
mod target;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use column::Column;
use error::Error;
use target::Target;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::given();
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
    for place in places::of(args) {
        targets.push(Target::open(place).await?);
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

/// The whole measurement, in the order of the table. Rounds go from column to column, so that a
/// machine that becomes slow is slow for all.
async fn measured<'a>(args: &Args, targets: &'a [Target]) -> Result<Vec<Column<'a>>, Error> {
    let logs = tempfile::Builder::new().prefix("podbay-bench-").tempdir().map_err(Error::Logs)?;
    let mut columns = column::all(args, targets, logs.path()).await?;
    rounds::run(args, &mut columns).await?;
    crowd::run(args, &mut columns).await?;
    held::run(args, &mut columns).await?;
    Ok(columns)
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
