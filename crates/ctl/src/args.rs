//! The command line: its verbs, flags and help texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_STATUS: &str = "\
Exit status:
  0    done
  1    it could not be done, or `status` found something not ready
  2    the command line is wrong
  3    podbayd does not answer
  4    there is no such pod, container or image
  130  interrupted
  `exec` exits as its command does.

A pod or container is named by its id, the beginning of its id, or its name.";

/// See and steer the pods of this node.
///
/// Talks to podbayd over its socket, or to any other runtime with CRI v1. Try `podbay demo` for a
/// pod in a second, without Kubernetes and without a set-up.
#[derive(Debug, Parser)]
#[command(name = "podbay", version, after_help = EXIT_STATUS, args_override_self = true)]
#[command(max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Socket of the runtime
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "PODBAY_SOCKET",
        default_value = "/run/podbay/podbay.sock",
        value_parser = socket
    )]
    pub socket: PathBuf,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Versions of this program and of the runtime
    Version,
    /// Whether the runtime and its network are ready, and which handlers there are
    Status(Output),
    /// List pods
    Pods(Output),
    /// List running containers
    Ps(Ps),
    /// Everything about a pod or a container, as JSON
    Inspect(One),
    /// Print what a container has written
    Logs(Logs),
    /// Run a command in a container, and print what it printed
    Exec(Exec),
    /// Stop pods or containers
    Stop(Stop),
    /// Remove pods or containers
    Rm(Rm),
    /// List, pull, load, save, name and remove images
    #[command(subcommand)]
    Image(Image),
    /// Records, images and layers that were set aside, because they could not be trusted
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Show what Podbay does: a private podbayd, a pod, and nothing left at the end
    Demo(Demo),
}

#[derive(Debug, Args)]
pub struct Output {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    #[command(flatten)]
    pub format: Output,
}

#[derive(Debug, Args)]
pub struct One {
    /// Pod or container
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Container
    pub container: String,
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Put the time before each line
    #[arg(short, long)]
    pub timestamps: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Kill the command after so many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Container
    pub container: String,
    /// The command and its words, after --
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds that containers get before they are killed
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub grace: Duration,
    /// Pods or containers
    #[arg(required = true)]
    pub ids: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Rm {
    /// Also what still runs
    #[arg(short, long)]
    pub force: bool,
    /// Pods or containers
    #[arg(required = true)]
    pub ids: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// List images
    Ls(Output),
    /// Pull an image from its registry
    Pull(Pull),
    /// Remove images, with all their names
    Rm {
        /// Names, digests or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Load images from an archive, as `docker save` and `skopeo` write them
    Load {
        /// The archive; - reads it from standard input
        file: PathBuf,
    },
    /// Save an image as an archive
    Save {
        /// Name, digest or id
        image: String,
        /// Where to; - writes to standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Give an image one more name
    Tag {
        /// Name, digest or id
        image: String,
        /// The new name
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Pull {
    /// Name, with a tag or a digest
    pub image: String,
    /// Who pulls
    #[arg(long, requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List them
    Ls(Output),
    /// Remove them, and what they owned where that is known
    Rm {
        /// Keys, as `quarantine ls` prints them
        #[arg(required = true)]
        keys: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Demo {
    /// The podbayd to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub podbayd: Option<PathBuf>,
    /// Addresses of the demo's own network
    #[arg(long, value_name = "CIDR", default_value = "10.89.0.0/24")]
    pub subnet: String,
}

/// A path, also in the form that crictl calls an endpoint.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser")]
fn socket(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text.strip_prefix("unix://").unwrap_or(text)))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| "a whole number of seconds is wanted".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_socket_may_be_written_as_an_endpoint() {
        for written in ["/a.sock", "unix:///a.sock"] {
            let cli = Cli::try_parse_from(["podbay", "pods", "--socket", written]);
            assert_eq!(cli.expect("it parses").socket, PathBuf::from("/a.sock"));
        }
    }

    #[test]
    fn the_words_of_a_command_are_its_own() {
        let words = ["podbay", "exec", "web", "--", "ls", "--all", "-o"];
        let Verb::Exec(exec) = Cli::try_parse_from(words).expect("it parses").verb else {
            panic!("exec is exec");
        };
        assert_eq!(
            (&*exec.container, exec.command),
            ("web", vec!["ls".into(), "--all".into(), "-o".into()])
        );
    }

    #[test]
    fn a_password_is_never_a_word_of_the_command_line() {
        assert!(Cli::try_parse_from(["podbay", "image", "pull", "a", "--username=b"]).is_err());
        assert!(Cli::try_parse_from(["podbay", "image", "pull", "a", "--password=b"]).is_err());
    }

    #[test]
    fn seconds_are_whole() {
        assert_eq!(seconds("5s"), Ok(Duration::from_secs(5)));
        assert!(seconds("1.5").is_err() && seconds("-1").is_err());
    }
}
