//! Signals, as CRI numbers them and as images name them, and their numbers on Linux.

use crate::Error;

const SIGTERM: i32 = 15;
/// The first and the last real-time signal, as glibc counts them.
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// Signals in the order in which CRI numbers them, from 1.
const BY_CRI: [(&str, i32); 34] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The signal that asks a container to end: the one of the request, else the image's, else SIGTERM.
pub(crate) fn stop_signal(asked: i32, image: Option<&str>) -> Result<i32, Error> {
    match (asked, image) {
        (0, None | Some("")) => Ok(SIGTERM),
        (0, Some(name)) => by_name(name).ok_or_else(|| {
            Error::rejected("the image's StopSignal", format!("{name:?} is not a signal"))
        }),
        (number, _) => by_cri(number).ok_or_else(|| {
            Error::rejected("config.stop_signal", format!("{number} is not a signal"))
        }),
    }
}

/// 35 to 50 are SIGRTMIN and what is added to it, 51 to 65 what is taken from SIGRTMAX, and it.
fn by_cri(number: i32) -> Option<i32> {
    match number {
        1..=34 => usize::try_from(number - 1).ok().map(|at| BY_CRI[at].1),
        35..=50 => Some(SIGRTMIN + (number - 35)),
        51..=65 => Some(SIGRTMAX - (65 - number)),
        _ => None,
    }
}

/// `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
fn by_name(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| text.parse::<i32>().ok().filter(|n| (0..=30).contains(n));
    match name.split_once(['+', '-']) {
        Some(("RTMIN", more)) => offset(more).map(|more| SIGRTMIN + more),
        Some(("RTMAX", less)) => offset(less).map(|less| SIGRTMAX - less),
        None if name == "RTMIN" => Some(SIGRTMIN),
        None if name == "RTMAX" => Some(SIGRTMAX),
        _ => BY_CRI.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_wins_over_the_image_and_the_image_over_sigterm() {
        assert_eq!(stop_signal(0, None).unwrap(), 15);
        assert_eq!(stop_signal(0, Some("SIGQUIT")).unwrap(), 3);
        assert_eq!(stop_signal(11, Some("SIGQUIT")).unwrap(), 29);
        assert_eq!(stop_signal(10, Some("SIGQUIT")).unwrap(), 2);
        assert!(stop_signal(0, Some("SIGNOTHING")).is_err());
        assert!(stop_signal(66, None).is_err());
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for (text, number) in
            [("TERM", 15), ("sigusr1", 10), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
        {
            assert_eq!(by_name(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGRTMIN+99", "-3"] {
            assert_eq!(by_name(text), None, "{text}");
        }
    }

    #[test]
    fn every_cri_number_is_a_signal_of_linux() {
        for number in 1..=65 {
            assert!((1..=64).contains(&by_cri(number).unwrap()), "{number}");
        }
        assert_eq!(
            (by_cri(23), by_cri(35), by_cri(51), by_cri(65)),
            (Some(15), Some(34), Some(50), Some(64))
        );
    }
}
