//! What went through the network interfaces of the namespace that this thread is in. To be read inside
//! [`crate::netns::within`]; opens no socket.

use std::{fs, io};

/// This thread's own view: `/proc/net` is that of the thread that the process began with.
const FILE: &str = "/proc/thread-self/net/dev";

/// What one interface has counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Counters,
    pub sent: Counters,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    /// Those too for which the interface had no room.
    pub dropped: u64,
}

/// All interfaces, as the kernel lists them.
///
/// # Errors
/// There is no procfs.
pub fn read() -> io::Result<Vec<Interface>> {
    Ok(parse(&fs::read(FILE)?))
}

/// The interfaces of such a table. Whoever rules the namespace names them, and a name need not be
/// text: what is not is shown as U+FFFD.
pub fn parse(table: &[u8]) -> Vec<Interface> {
    String::from_utf8_lossy(table).lines().filter_map(interface).collect()
}

/// A line such as `  eth0: 656 8 0 0 0 0 0 0 656 8 0 0 0 0 0 0` (proc_pid_net(5)). None for the two
/// above it, which are headings.
fn interface(line: &str) -> Option<Interface> {
    // A name holds no space and no slash, but it may hold a colon.
    let (name, numbers) = line.trim_start_matches(' ').rsplit_once(':')?;
    let mut numbers = numbers.split_whitespace().map(|number| number.parse().ok());
    let mut one_way = || {
        let mut next = || numbers.next().flatten();
        let counters =
            Counters { bytes: next()?, packets: next()?, errors: next()?, dropped: next()? };
        // fifo, frame (or collisions), compressed, multicast (or carrier)
        for _ in 0..4 {
            next()?;
        }
        Some(counters)
    };
    Some(Interface { name: name.to_owned(), received: one_way()?, sent: one_way()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_counters_of_an_interface_are_read_from_its_line() {
        let line = " eth0:1: 1 2 3 4 5 6 7 8 11 12 13 14 15 16 17 18";
        let eth0 = interface(line).unwrap();
        assert_eq!(eth0.name, "eth0:1");
        assert_eq!(eth0.received, Counters { bytes: 1, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(eth0.sent, Counters { bytes: 11, packets: 12, errors: 13, dropped: 14 });
        assert_eq!(interface("Inter-|   Receive                 |  Transmit"), None);
        assert_eq!(interface(" face |bytes    packets errs drop fifo"), None);
        assert_eq!(interface("eth0: 1 2 3"), None);
    }

    #[test]
    fn a_name_that_is_not_text_hides_no_interface() {
        let table =
            b"    lo: 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7\n\xff\xfe: 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7\n";
        let names: Vec<String> = parse(table).into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["lo", "\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn the_loopback_is_among_the_interfaces() {
        assert!(read().unwrap().iter().any(|interface| interface.name == "lo"));
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_a_panic(
            text in "(eth0|:|\n|[0-9 ]|\\PC){0,60}",
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = parse(&[text.as_bytes(), &bytes].concat());
        }
    }
}
