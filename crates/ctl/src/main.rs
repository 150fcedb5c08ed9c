//! podbay: the command line for people. It asks a runtime over its socket and prints what it hears;
//! it decides nothing itself, and reads no state of the daemon but the logs of containers.

mod args;
mod demo;
mod error;
mod find;
mod json;
mod link;
mod log;
mod paint;
mod table;
mod verb;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let outcome = run(cli, &mut out).await;
    let flushed = out.flush().map_err(Error::Output);
    match outcome.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podbay: {}", error.chain());
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli, out: &mut dyn Write) -> Result<ExitCode, Error> {
    match cli.verb {
        Verb::Demo(demo) => demo::run(demo, out).await.map(|()| ExitCode::SUCCESS),
        verb => verb::run(&cli.socket, verb, out).await,
    }
}
