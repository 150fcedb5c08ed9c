//! Quantities as Kubernetes writes them (`10M`, `1.5Gi`, `2e6`), as whole numbers. Pure.

/// The value of `text`, rounded up to a whole number as `Quantity.Value()` does; none if it is not a
/// quantity, or beyond what an `i128` holds.
pub(crate) fn parse(text: &str) -> Option<i128> {
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let digits = if negative { -digits } else { digits };
    let (factor, exponent) = scale(suffix)?;
    let places = i32::try_from(fraction.len()).ok()?;
    shift(digits.checked_mul(factor)?, exponent.checked_sub(places)?)
}

/// A suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let decimal = |exponent| Some((1, exponent));
    let binary = |exponent| Some((1_i128 << exponent, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

/// `value` times ten to the `exponent`, rounded up.
fn shift(value: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        return if value == 0 { Some(0) } else { value.checked_mul(power?) };
    }
    // Beyond the greatest power, what is left is a fraction of one.
    let Some(power) = power else { return Some(i128::from(value > 0)) };
    Some(value.div_euclid(power) + i128::from(value.rem_euclid(power) != 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("0", 0),
            ("10M", 10_000_000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            (".5k", 500),
            ("5.", 5),
            ("+7", 7),
            ("-7k", -7000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("1e-3", 1),
            ("1001m", 2),
            ("-1500m", -1),
            ("100n", 1),
            ("1e-300", 1),
            ("0e300", 0),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", ".", "-", "M", "1K", "1 M", "1.2.3", "0x10", "1e", "1e300", "١", "1MM"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+]?[0-9.]{0,45}(n|u|m|k|M|Ei|e-?[0-9]{0,12}|.{0,3})") {
            parse(&text);
        }

        #[test]
        fn whole_numbers_are_themselves(number in any::<i64>()) {
            prop_assert_eq!(parse(&number.to_string()), Some(i128::from(number)));
        }
    }
}
