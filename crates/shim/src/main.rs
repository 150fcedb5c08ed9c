//! `podbay-shim`: see the library next to it. Nothing is decided here.

use std::process::ExitCode;

use shim::{error::Error, seal, settings::Settings, start};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podbay-shim: {}", error.words());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let settings = Settings::parse(std::env::args_os().skip(1))?;
    seal::seal()?;
    start::run(&settings)
}
