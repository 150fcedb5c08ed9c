//! The time of day, and how the CRI log writes it. No time zones: the log's are UTC.

use names::Nanos;

/// The length of `2026-11-23T01:02:03.123456789Z`.
pub const STAMP: usize = 30;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// RFC 3339 with nine digits after the point. Years beyond 9999 do not fit in an i64 of ns.
pub fn stamp(at: Nanos) -> [u8; STAMP] {
    let seconds = at.div_euclid(SECOND);
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let fields = [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, second / 3600),
        (14..16, second / 60 % 60),
        (17..19, second % 60),
        (20..29, at.rem_euclid(SECOND)),
    ];
    for (place, value) in fields {
        digits(&mut text[place], value);
    }
    text
}

fn digits(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).expect("a digit of a number that is not negative");
        value /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar: years are
/// reckoned from March, so that the leap day is a year's last.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468; // from 0000-03-01
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * march_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        let at = |at: Nanos| String::from_utf8(stamp(at).to_vec()).unwrap();
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_826_554_000_000_001), "2000-02-29T12:15:54.000000001Z");
        assert_eq!(at(1_709_164_800_120_000_000), "2024-02-29T00:00:00.120000000Z");
        assert_eq!(at(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999999Z");
        assert_eq!(at(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(at(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn the_days_follow_each_other() {
        let mut last = date(-1);
        for day in 0..100_000 {
            let next = date(day);
            let follows = (next.0, next.1, next.2) == (last.0, last.1, last.2 + 1)
                || (next.0, next.1, next.2) == (last.0, last.1 + 1, 1)
                || next == (last.0 + 1, 1, 1);
            assert!(follows, "{last:?} {next:?}");
            last = next;
        }
    }
}
