//! Which runtimes are measured and with which of their handlers, as the flags say it.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use crate::args::Args;

/// Letters that columns can have.
const COLUMNS: usize = 26;

/// Names with commas between them. An empty one is the default of the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Handlers(Vec<String>);

/// A path, with handlers behind the last `=` or without.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    socket: PathBuf,
    handlers: Option<Handlers>,
}

/// A socket, and the handlers that are measured there: each is a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub socket: PathBuf,
    pub handlers: Vec<String>,
    /// The pid that was given for its daemon.
    pub daemon: Option<u32>,
}

impl FromStr for Handlers {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Handlers, Infallible> {
        Ok(Handlers(text.split(',').map(|name| name.trim().to_owned()).collect()))
    }
}

impl FromStr for Other {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Other, Infallible> {
        // No handler has a slash in its name, but a folder may have a `=`.
        let split = text.rsplit_once('=').filter(|(_, names)| !names.contains('/'));
        let (socket, names) = split.map_or((text, None), |(path, names)| (path, Some(names)));
        let handlers = names.map(str::parse).transpose()?;
        Ok(Other { socket: PathBuf::from(socket), handlers })
    }
}

/// In the order of the flags. One for each socket, however often it is named.
pub fn of(args: &Args) -> Vec<Place> {
    let Handlers(handlers) = args.handler.clone();
    let mut places = vec![Place { socket: args.socket.clone(), handlers, daemon: args.pid }];
    let daemons = args.other_pid.iter().copied().map(Some).chain(std::iter::repeat(None));
    for (other, daemon) in args.other.iter().zip(daemons) {
        let Handlers(handlers) = other.handlers.clone().unwrap_or_else(|| args.handler.clone());
        match places.iter_mut().find(|place| place.socket == other.socket) {
            Some(known) => known.handlers.extend(handlers),
            None => places.push(Place { socket: other.socket.clone(), handlers, daemon }),
        }
    }
    places
}

/// What no flag alone can be blamed for.
pub fn check(args: &Args) -> Result<(), String> {
    let columns: usize = of(args).iter().map(|place| place.handlers.len()).sum();
    let (pids, others) = (args.other_pid.len(), args.other.len());
    match () {
        () if columns > COLUMNS => {
            Err(format!("{columns} columns are asked for, and there are letters for {COLUMNS}"))
        }
        () if pids > others => {
            Err(format!("--other-pid is given {pids} times, and --other only {others} times"))
        }
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    fn args(flags: &[&str]) -> Args {
        let flags = ["podbay-bench", "--socket=/a.sock"].iter().chain(flags);
        Args::try_parse_from(flags).expect("the flags are good")
    }

    fn columns(flags: &[&str]) -> Vec<String> {
        let column = |place: &Place, name: &String| format!("{}:{name}", place.socket.display());
        let of_one = |place: &Place| -> Vec<_> {
            place.handlers.iter().map(|name| column(place, name)).collect()
        };
        of(&args(flags)).iter().flat_map(of_one).collect()
    }

    #[test]
    fn without_a_word_there_is_one_column_of_the_default_handler() {
        assert_eq!(columns(&[]), ["/a.sock:"]);
    }

    #[test]
    fn each_handler_is_a_column_of_the_same_socket() {
        assert_eq!(
            columns(&["--handler=pause, podbay,"]),
            ["/a.sock:pause", "/a.sock:podbay", "/a.sock:"]
        );
    }

    #[test]
    fn a_handler_may_stand_beside_itself_to_see_what_chance_does() {
        assert_eq!(columns(&["--handler=a,a"]), ["/a.sock:a", "/a.sock:a"]);
    }

    #[test]
    fn the_last_list_of_handlers_is_the_one_that_counts() {
        assert_eq!(columns(&["--handler=a,b", "--handler=c"]), ["/a.sock:c"]);
    }

    #[test]
    fn other_sockets_have_the_same_handlers_unless_they_have_their_own() {
        let flags = ["--handler=a,b", "--other=/b.sock", "--other=/c.sock=", "--other=/d.sock=x,y"];
        assert_eq!(
            columns(&flags),
            [
                "/a.sock:a",
                "/a.sock:b",
                "/b.sock:a",
                "/b.sock:b",
                "/c.sock:",
                "/d.sock:x",
                "/d.sock:y"
            ]
        );
    }

    #[test]
    fn a_socket_that_is_named_twice_is_one_place_with_more_columns() {
        let flags = ["--handler=a", "--other=/b.sock", "--other=/a.sock=x"];
        assert_eq!(columns(&flags), ["/a.sock:a", "/a.sock:x", "/b.sock:a"]);
    }

    #[test]
    fn a_folder_may_have_an_equals_sign_in_its_name() {
        assert_eq!(columns(&["--other=/x=y/b.sock"])[1..], ["/x=y/b.sock:"]);
        assert_eq!(columns(&["--other=/x=y/b.sock=z"])[1..], ["/x=y/b.sock:z"]);
    }

    #[test]
    fn pids_of_daemons_are_given_in_the_order_of_the_sockets() {
        let args = args(&[
            "--pid=7",
            "--other=/b.sock",
            "--other=/c.sock",
            "--other=/d.sock",
            "--other-pid=8",
            "--other-pid=9",
        ]);
        let daemons: Vec<_> = of(&args).iter().map(|place| place.daemon).collect();
        assert_eq!(daemons, [Some(7), Some(8), Some(9), None]);
    }

    #[test]
    fn more_pids_than_sockets_are_refused() {
        let args = args(&["--other=/b.sock", "--other-pid=1", "--other-pid=2"]);
        let why = check(&args).expect_err("one is too many");
        assert_eq!(why, "--other-pid is given 2 times, and --other only 1 times");
    }

    #[test]
    fn more_columns_than_letters_are_refused() {
        let handlers = |count: usize| format!("--handler={}", ",".repeat(count - 1));
        assert_eq!(check(&args(&[&handlers(26)])), Ok(()));
        assert!(check(&args(&[&handlers(27)])).is_err());
    }

    proptest! {
        #[test]
        fn any_text_names_a_socket_and_at_least_one_handler(text in ".{0,40}") {
            let Ok(Handlers(names)) = text.parse();
            prop_assert!(!names.is_empty());
            let Ok(other) = text.parse::<Other>();
            prop_assert!(text.starts_with(other.socket.to_str().expect("it was text")));
        }
    }
}
