//! The flags. What they mean is said in their help texts, and nowhere else.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};

use crate::places::{self, Handlers, Other};

/// Measure what pods cost at a CRI socket.
///
/// Drives the socket with raw gRPC: pods one after the other, many at a time, and many held. Every
/// pod carries the label podbay-bench=1; all pods with it are removed at the start and at the end,
/// also on Ctrl-C and after an error. Run it as root, on a machine that does nothing else.
#[derive(Debug, Parser)]
#[command(name = "podbay-bench", version, max_term_width = 100, args_override_self = true)]
#[command(after_help = "Exit status: 0 measured; 1 a call failed; 2 the flags are wrong; \
                        3 nobody answers at a socket; 130 interrupted.")]
pub struct Args {
    /// The socket to measure
    #[arg(long, value_name = "PATH", default_value = "/run/podbay/podbay.sock")]
    pub socket: PathBuf,

    /// Another socket, measured in turn with the first; may be given more than once. It has the
    /// handlers of --handler, or its own behind a `=`; nothing behind it means its default
    #[arg(long, value_name = "PATH[=HANDLERS]")]
    pub other: Vec<Other>,

    /// Runtime handlers of the pods, with commas between them. Each is a column of its own
    /// [default: that of the runtime]
    #[arg(long, value_name = "HANDLERS", default_value = "", hide_default_value = true)]
    pub handler: Handlers,

    /// An image that is there already [default: one that has "busybox" in its name]
    #[arg(long, value_name = "NAME", conflicts_with = "make_image")]
    pub image: Option<String>,

    /// Have the runtime make an image from this static busybox (Podbay only)
    #[arg(
        long,
        value_name = "BUSYBOX",
        num_args = 0..=1,
        default_missing_value = "/bin/busybox"
    )]
    pub make_image: Option<PathBuf>,

    /// What the containers run: it must stay and be in the image
    #[arg(long, value_name = "WORDS", value_delimiter = ' ', default_value = "sleep 999983")]
    pub command: Vec<String>,

    /// Pods, one after the other, of each column
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub rounds: u32,

    /// Pods that are made at a time in the second part, in all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub pods: u32,

    /// How many of them at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: u32,

    /// Pods that are held in the third part, for memory and calls
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub held: u32,

    /// Network of the pods
    #[arg(long, value_enum, default_value_t = Network::Pod)]
    pub network: Network,

    /// Programs that count as supervisors [default: all that the daemon starts for the pods, but for
    /// containers; and a podbay-shim, podbay-pause or pause of this runtime that was there before]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub supervisors: Vec<String>,

    /// Pid of the daemon behind --socket [default: who listens]
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Pid of the daemon behind --other, as often and in the order as that [default: who listens]
    #[arg(long, value_name = "PID")]
    pub other_pid: Vec<u32>,

    /// Print JSON in place of the table
    #[arg(long)]
    pub json: bool,
}

/// Where a pod's addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// That of the host: nothing is made
    Host,
    /// Its own, by what the runtime is set up with
    Pod,
}

impl Args {
    /// Those of the command line. Ends the program, with a word why, if they are wrong.
    pub fn given() -> Args {
        let args = Args::parse();
        match places::check(&args) {
            Ok(()) => args,
            Err(why) => Args::command().error(ErrorKind::ValueValidation, why).exit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_image_can_be_made_without_saying_from_what() {
        let args = Args::try_parse_from(["podbay-bench", "--make-image"]).expect("it parses");
        assert_eq!(args.make_image.as_deref(), Some(Path::new("/bin/busybox")));
    }

    #[test]
    fn a_crowd_of_none_at_a_time_is_refused() {
        assert!(Args::try_parse_from(["podbay-bench", "--parallel", "0"]).is_err());
    }
}
