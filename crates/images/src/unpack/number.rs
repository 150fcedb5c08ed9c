//! Numbers as tar headers write them. Stricter than the `tar` crate, which drops the sign and the
//! high bytes of binary numbers: two readers that disagree about a size see two archives.

/// Reads a numeric field: octal digits between spaces and NULs, or base 256 if the first bit is
/// set (the second is its sign). An empty field is 0. `None` if it is neither, or does not fit.
pub fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let padding = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !padding(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(padding).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(padding) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn binary(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { i128::from(field[0]) - 0x100 } else { i128::from(field[0] & 0x7f) };
    let value = field[1..]
        .iter()
        .try_fold(first, |value, byte| value.checked_mul(256)?.checked_add(i128::from(*byte)))?;
    i64::try_from(value).ok()
}

/// Reads a decimal time in seconds, as PAX writes it (`-1.25`), into whole seconds and the
/// nanoseconds after them.
pub fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 64 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0i64, |nanos, digit| nanos * 10 + i64::from(digit - b'0'));
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_is_octal_or_binary_and_nothing_else() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   755 \0"), Some(0o755));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        assert_eq!(number(&[0xff; 8]), Some(-1));
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None, "2^63");
        for bad in [b"0o644\0\0".as_slice(), b"8", b"-1", b"1 2", b"0x1f"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_time_may_be_before_1970_and_between_seconds() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time(b"7.1234567891"), Some((7, 123_456_789)));
        for bad in ["", "x", "1.x", "1e9", "99999999999999999999"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_field_is_read_without_a_panic(field in prop::collection::vec(any::<u8>(), 0..16)) {
            let _ = number(&field);
            let _ = time(&field);
        }
    }
}
