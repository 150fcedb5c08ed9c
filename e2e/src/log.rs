//! The log file of a container, read as the kubelet reads it.

use std::path::Path;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stream: String,
    /// Whether it is continued by the next one.
    pub partial: bool,
    pub text: Vec<u8>,
}

/// The lines of a log.
///
/// # Panics
/// A line is not in the form that CRI prescribes, is cut off, or the file is not there.
pub fn lines(path: &Path) -> Vec<Line> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let Some(whole) = bytes.strip_suffix(b"\n") else {
        assert!(bytes.is_empty(), "{} ends in the middle of a line", path.display());
        return Vec::new();
    };
    let parse = |line: &[u8]| {
        let shown = String::from_utf8_lossy(line).into_owned();
        parse(line).unwrap_or_else(|| panic!("{}: not a line of a log: {shown:?}", path.display()))
    };
    whole.split(|byte| *byte == b'\n').map(parse).collect()
}

/// What a container said on one of its streams.
pub fn text(path: &Path, stream: &str) -> String {
    let mut text = Vec::new();
    for line in lines(path).into_iter().filter(|line| line.stream == stream) {
        text.extend(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let partial = match tag {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let good = is_time(time) && matches!(stream, b"stdout" | b"stderr");
    let stream = String::from_utf8_lossy(stream).into_owned();
    good.then_some(Line { stream, partial, text: parts.next()?.to_owned() })
}

/// RFC 3339 with up to nine digits of a second: `2026-11-23T10:20:30.123456789Z`, or an offset.
fn is_time(time: &[u8]) -> bool {
    let form = b"0000-00-00T00:00:00";
    let Some((date, rest)) = time.split_at_checked(form.len()) else { return false };
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    let rest = match rest.strip_prefix(b".") {
        Some(rest) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &rest[digits..]
        }
        None => rest,
    };
    let zone = match rest {
        [b'Z'] => true,
        [b'+' | b'-', zone @ ..] => zone.len() == 5 && zone.iter().zip(b"00:00").all(fits),
        _ => false,
    };
    date.iter().zip(form).all(fits) && zone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_from_one_that_is_torn() {
        let line = parse(b"2026-11-23T10:20:30.123456789Z stdout F a b").unwrap();
        assert_eq!((line.stream.as_str(), line.partial), ("stdout", false));
        assert_eq!(line.text, b"a b");
        assert!(parse(b"2026-11-23T10:20:30Z stderr P ").unwrap().partial);
        assert!(parse(b"2026-11-23T10:20:30.5+01:00 stdout F x").is_some());
        for torn in [
            &b"2026-11-23T10:20:30.1234567891Z stdout F x"[..],
            b"stdout F x",
            b"2026-11-23T10:20:30Z stdout X x",
            b"2026-11-23T10:20:30Z stdin F x",
            b"2026-11-23T10:20:30Z stdout F",
            b"2026-11-23T10:20:3",
            b"",
        ] {
            assert_eq!(parse(torn), None, "{}", String::from_utf8_lossy(torn));
        }
    }
}
