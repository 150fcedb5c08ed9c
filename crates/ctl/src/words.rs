//! How things are said to people: ages, sizes, ids, states.

use std::time::Duration;

use cri_proto::v1::{ContainerState, PodSandboxState};
use jiff::Timestamp;

/// How long ago, in at most two units: 42s, 3m12s, 5h, 2d3h, 40d. `-` for a time that was not set;
/// a clock that went back makes it 0s.
pub fn age(then: i64, now: i64) -> String {
    if then <= 0 {
        return "-".to_owned();
    }
    let seconds = now.saturating_sub(then).max(0) / 1_000_000_000;
    let two = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    match seconds {
        s if s < 120 => format!("{s}s"),
        s if s < 600 => two(s / 60, "m", s % 60, "s"),
        s if s < 7200 => format!("{}m", s / 60),
        s if s < 10 * 3600 => two(s / 3600, "h", s % 3600 / 60, "m"),
        s if s < 48 * 3600 => format!("{}h", s / 3600),
        s if s < 10 * 86400 => two(s / 86400, "d", s % 86400 / 3600, "h"),
        s => format!("{}d", s / 86400),
    }
}

/// A moment as RFC 3339; None when it was not set.
pub fn moment(nanos: i64) -> Option<String> {
    let moment = Timestamp::from_nanosecond(i128::from(nanos)).ok()?;
    (nanos > 0).then(|| moment.to_string())
}

/// Bytes in decimal units, as registries and disks count.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.digits$}{}", units[unit])
}

/// A duration to three digits that matter.
pub fn took(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        m if m < 9.95 => format!("{m:.1} ms"),
        m if m < 999.5 => format!("{m:.0} ms"),
        m => format!("{:.1} s", m / 1e3),
    }
}

/// As much of an id as a person needs to tell it from others.
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..13).unwrap_or(id)
}

/// `-` for what is not there.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

pub fn pod_state(state: i32) -> &'static str {
    match PodSandboxState::try_from(state) {
        Ok(PodSandboxState::SandboxReady) => "Ready",
        Ok(PodSandboxState::SandboxNotready) => "NotReady",
        Err(_) => "Unknown",
    }
}

pub fn container_state(state: i32) -> &'static str {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => "Created",
        Ok(ContainerState::ContainerRunning) => "Running",
        Ok(ContainerState::ContainerExited) => "Exited",
        Ok(ContainerState::ContainerUnknown) | Err(_) => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn aged(seconds: i64) -> String {
        age(SECOND, SECOND + seconds * SECOND)
    }

    #[test]
    fn ages_have_two_units_where_the_second_one_matters() {
        let day = 86400;
        let seconds =
            [0, 119, 120, 192, 660, 7199, 7200, 9000, 36000, 3 * day, 3 * day + 7300, 40 * day];
        let said = seconds.map(aged);
        let wanted =
            ["0s", "119s", "2m", "3m12s", "11m", "119m", "2h", "2h30m", "10h", "3d", "3d2h", "40d"];
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_time_that_was_not_set_has_no_age() {
        assert_eq!(age(0, SECOND), "-");
        assert_eq!(moment(0), None);
    }

    #[test]
    fn a_clock_that_went_back_makes_nobody_negative() {
        assert_eq!(age(10 * SECOND, SECOND), "0s");
    }

    #[test]
    fn moments_are_of_the_calendar() {
        assert_eq!(moment(1_700_000_000 * SECOND).as_deref(), Some("2023-11-14T22:13:20Z"));
    }

    #[test]
    fn sizes_are_decimal() {
        let said = [0, 999, 1000, 4_261_574, 99_960_000, 999_600_000, u64::MAX].map(size);
        assert_eq!(said, ["0B", "999B", "1.0kB", "4.3MB", "100MB", "1.0GB", "18446744TB"]);
    }

    #[test]
    fn durations_have_three_digits_at_most() {
        let said = [0.0012, 0.0341, 0.2, 2.34].map(|s| took(Duration::from_secs_f64(s)));
        assert_eq!(said, ["1.2 ms", "34 ms", "200 ms", "2.3 s"]);
    }

    #[test]
    fn ids_are_cut_and_shorter_ones_are_not() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789abc");
        assert_eq!(short("abc"), "abc");
        assert_eq!(short("ääääääääääää"), "ääääääääääää");
    }

    proptest! {
        #[test]
        fn every_number_can_be_said(a in any::<i64>(), b in any::<i64>(), c in any::<u64>()) {
            age(a, b);
            moment(a);
            prop_assert!(size(c).len() < 12);
        }

        #[test]
        fn every_id_can_be_cut(id in ".{0,80}") {
            prop_assert!(id.contains(short(&id)));
        }
    }
}
