//! podbayd: builds the rooms from the configuration, serves CRI on a socket, and drains. What pods
//! are, and how they are made, is not known here.

mod apparmor;
mod build;
mod cgroups;
mod features;
mod find;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use config::Config;

/// Where the configuration is, if there is one and no other is named.
const CONFIG: &str = "/etc/podbay/config.toml";

/// The node runtime: makes pods for a kubelet, or for crictl.
#[derive(Parser)]
#[command(name = "podbayd", version, about, long_about = LONG, after_help = AFTER)]
struct Arguments {
    /// The configuration, in TOML. Without it /etc/podbay/config.toml is read if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

const LONG: &str = "podbayd serves the Container Runtime Interface (CRI v1) on a unix socket, for \
kubelets 1.33 to 1.37 and for crictl. It may be killed and started again at any time: pods do not \
notice.";

const AFTER: &str = "Exit codes: 0 ended when asked to; 1 could not start or serve; 2 wrong arguments.\n\
A first pod without Kubernetes: podbay demo";

#[derive(Subcommand)]
enum Verb {
    /// Show or check the configuration.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Print every key with its default and its meaning.
    Default,
    /// Read the configuration and say whether it is good.
    Check,
}

fn main() -> ExitCode {
    sys::heap::few_arenas();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podbayd: {}", names::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), build::Error> {
    match &arguments.verb {
        Some(Verb::Config { verb: ConfigVerb::Default }) => print!("{}", config::DEFAULT),
        Some(Verb::Config { verb: ConfigVerb::Check }) => {
            read_config(arguments)?;
            println!("the configuration is good");
        }
        None => {
            let config = read_config(arguments)?;
            log_as(&config.log)?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|source| build::Error::io("starting the threads of", "podbayd", source))?
                .block_on(serve::serve(config))?;
        }
    }
    Ok(())
}

fn read_config(arguments: &Arguments) -> Result<Config, build::Error> {
    let usual = PathBuf::from(CONFIG);
    match &arguments.config {
        Some(path) => Ok(Config::read(path)?),
        None if usual.exists() => Ok(Config::read(&usual)?),
        None => Ok(Config::default()),
    }
}

fn log_as(filter: &str) -> Result<(), build::Error> {
    serving::log_as(filter)
        .map_err(|why| build::Error::BadLogFilter { filter: filter.to_owned(), why })
}
