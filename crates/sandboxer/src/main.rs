//! podbay-sandboxer: keeps sandboxes in a process of its own, and serves containerd's sandbox service
//! (`containerd.services.sandbox.v1`) on a unix socket. What a sandbox is, and how it is made, is in the
//! room `controllers`; here it is served, recorded, and found again.

mod build;
mod error;
mod sandboxes;
mod serve;
mod service;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use serde::{Deserialize as _, de::IntoDeserializer as _};

/// Keeps pod sandboxes for podbayd or containerd, in a process of its own.
#[derive(Clone, Debug, Parser)]
#[command(name = "podbay-sandboxer", version, about, long_about = LONG, after_help = AFTER)]
struct Arguments {
    /// What the sandboxes are.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Where to serve: a unix socket, made with mode 0660.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// What belongs to this boot: sockets, namespaces. It should be on a tmpfs. Two podbay-sandboxers
    /// need two of these.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// What must outlive this process: records. Two podbay-sandboxers need two of these.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// What clients call it in their requests: for containerd the name of the proxy plugin. Default: the
    /// kind.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The supervisor of containers. Default: podbay-shim beside this program, else in
    /// /usr/libexec/podbay.
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// The init of shared pid namespaces. Default: podbay-pause, in the same places.
    #[arg(long, value_name = "PATH")]
    pause: Option<PathBuf>,
    /// How many pods one supervisor serves.
    #[arg(long, value_enum, default_value_t = Grouping::Pod)]
    shim_grouping: Grouping,
    /// How long a supervisor may take for any one call.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = period)]
    shim_deadline: Duration,
    /// What is logged, to standard error: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

const LONG: &str = "podbay-sandboxer keeps pod sandboxes for podbayd, containerd, or any other client of \
containerd's sandbox service. It may be killed and started again at any time: pods do not notice.";

const AFTER: &str =
    "Exit codes: 0 ended when asked to; 1 could not start or serve; 2 wrong arguments.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Pinned to files; no process but where containers share their processes.
    Namespaces,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Grouping {
    /// What happens to it happens to one pod.
    Pod,
    /// All pods cost the memory of one.
    Node,
}

/// As the configuration of podbayd writes them: 500ms, 2m.
fn period(text: &str) -> Result<Duration, serde::de::value::Error> {
    config::Period::deserialize(text.into_deserializer()).map(|period| period.0)
}

fn main() -> ExitCode {
    sys::heap::few_arenas();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podbay-sandboxer: {}", names::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), build::Error> {
    for path in [&mut arguments.socket, &mut arguments.state, &mut arguments.root] {
        let absolute = std::path::absolute(&*path);
        *path = absolute.map_err(|source| build::Error::io("finding", path.clone(), source))?;
    }
    log_as(&arguments.log)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| build::Error::io("starting the threads of", "podbay-sandboxer", source))?
        .block_on(serve::serve(arguments))
}

fn log_as(filter: &str) -> Result<(), build::Error> {
    serving::log_as(filter)
        .map_err(|why| build::Error::BadLogFilter { filter: filter.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_periods_are_those_of_the_configuration() {
        let given = ["x", "--kind", "namespaces", "--socket", "s", "--state", "t", "--root", "r"];
        let arguments = Arguments::try_parse_from(given).unwrap();
        assert_eq!(arguments.shim_deadline, Duration::from_secs(120));
        assert_eq!((arguments.kind, arguments.shim_grouping), (Kind::Namespaces, Grouping::Pod));
        assert_eq!(period("500ms"), Ok(Duration::from_millis(500)));
        let wrong = given.iter().chain(&["--shim-deadline", "soon"]);
        assert!(Arguments::try_parse_from(wrong).unwrap_err().to_string().contains("soon"));
        assert!(Arguments::try_parse_from(["x"]).is_err());
    }
}
