//! The log files of containers: `<time> <stream> <P|F> <text>`, a line each. Reading them; the
//! writing is done by the supervisor of the pod.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longer lines are given in pieces, for a log may hold anything.
const LONGEST: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of a log file, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339, as it was written.
    pub time: &'a str,
    pub stream: Stream,
    /// More of the same line follows.
    pub partial: bool,
    /// What the container wrote, without the end of the line.
    pub payload: &'a [u8],
}

/// Takes a line apart, with or without its end. None when it is not of that form.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (time, rest) = word(line)?;
    let (stream, rest) = word(rest)?;
    // The kind may be a list of tags, of which the first counts; an empty payload may lack its
    // space.
    let (kind, payload) = word(rest).unwrap_or((rest, b""));
    let partial = match kind.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let time = std::str::from_utf8(time).ok().filter(|t| !t.is_empty())?;
    Some(Line { time, stream, partial, payload })
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|b| *b == b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

/// What a person gets to see of a line: where it goes, and its bytes. A line that is not of the
/// form is shown as it is.
pub fn shown(line: &[u8], timestamps: bool) -> (Stream, Vec<u8>) {
    let Some(parsed) = parse(line) else {
        return (Stream::Stdout, line.to_vec());
    };
    let mut bytes = Vec::with_capacity(line.len());
    if timestamps {
        bytes.extend_from_slice(parsed.time.as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(parsed.payload);
    if !parsed.partial {
        bytes.push(b'\n');
    }
    (parsed.stream, bytes)
}

/// Reads a log file line by line, and goes on with the next file after a rotation.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// The beginning of a line of which the rest is not written yet.
    begun: Vec<u8>,
}

impl Reader {
    pub fn open(path: &Path) -> io::Result<Reader> {
        let file = BufReader::new(File::open(path)?);
        Ok(Reader { path: path.to_owned(), file, begun: Vec::new() })
    }

    /// The next whole line, if it is written. At the end of a file that was rotated away, the first
    /// line of the new one.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.whole_line()? {
            None if self.is_rotated() => {
                // Once more: it was perhaps written to between our look and the rotation.
                if let Some(line) = self.whole_line()? {
                    return Ok(Some(line));
                }
                self.file = BufReader::new(File::open(&self.path)?);
                self.begun.clear();
                self.whole_line()
            }
            line => Ok(line),
        }
    }

    /// The last `count` whole lines; all that came before are passed over.
    pub fn last(&mut self, count: usize) -> io::Result<VecDeque<Vec<u8>>> {
        let mut kept = VecDeque::new();
        while let Some(line) = self.next()? {
            kept.push_back(line);
            let whole = kept.iter().filter(|l| parse(l).is_none_or(|l| !l.partial)).count();
            if whole > count {
                drop_first_message(&mut kept);
            }
        }
        Ok(kept)
    }

    fn whole_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = LONGEST.saturating_sub(self.begun.len() as u64);
        io::Read::take(&mut self.file, room).read_until(b'\n', &mut self.begun)?;
        let whole = self.begun.ends_with(b"\n") || self.begun.len() as u64 >= LONGEST;
        Ok(whole.then(|| std::mem::take(&mut self.begun)))
    }

    /// Whether the path leads to another file by now, and that one is there.
    fn is_rotated(&self) -> bool {
        let Ok(ours) = self.file.get_ref().metadata() else { return false };
        std::fs::metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) != (ours.dev(), ours.ino()))
    }
}

/// Drops lines up to the first that ends a message.
fn drop_first_message(lines: &mut VecDeque<Vec<u8>>) {
    while let Some(line) = lines.pop_front() {
        if parse(&line).is_none_or(|line| !line.partial) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            parse(b"2026-01-02T03:04:05.678901234Z stderr F two words\n").expect("it is one");
        assert_eq!(line.time, "2026-01-02T03:04:05.678901234Z");
        assert_eq!(
            (line.stream, line.partial, line.payload),
            (Stream::Stderr, false, &b"two words"[..])
        );
    }

    #[test]
    fn what_was_written_need_not_be_text() {
        let line = parse(b"t stdout P \xff\x00 \xfe").expect("it is one");
        assert_eq!((line.partial, line.payload), (true, &b"\xff\x00 \xfe"[..]));
    }

    #[test]
    fn an_empty_line_is_one_too() {
        for written in [&b"t stdout F \n"[..], b"t stdout F\n"] {
            assert_eq!(parse(written).expect("it is one").payload, b"");
        }
    }

    #[test]
    fn tags_after_the_first_are_passed_over() {
        assert!(parse(b"t stdout P:x:y rest").expect("it is one").partial);
    }

    #[test]
    fn what_is_not_of_the_form_is_shown_as_it_is() {
        for written in [&b""[..], b"\n", b"t", b"t stdin F x", b"t stdout X x", b" stdout F x"] {
            assert_eq!(parse(written), None, "{written:?}");
            assert_eq!(shown(written, false).1, written);
        }
    }

    #[test]
    fn pieces_of_a_line_are_put_together() {
        let (_, first) = shown(b"t stdout P one \n", false);
        let (_, second) = shown(b"t stdout F line\n", false);
        assert_eq!([first, second].concat(), b"one line\n");
    }

    #[test]
    fn times_are_shown_when_wanted() {
        assert_eq!(shown(b"t stdout F x\n", true).1, b"t x\n");
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(content: &str) -> Place {
            let place = Place(tempfile::tempdir().expect("a temporary directory"));
            fs::write(place.log(), content).expect("the directory is ours");
            place
        }

        fn log(&self) -> PathBuf {
            self.0.path().join("0.log")
        }

        fn append(&self, text: &str) {
            let mut file =
                File::options().append(true).create(true).open(self.log()).expect("ours");
            file.write_all(text.as_bytes()).expect("the directory is ours");
        }
    }

    fn next(reader: &mut Reader) -> Option<String> {
        let line = reader.next().expect("the file can be read");
        line.map(|line| String::from_utf8(line).expect("the test writes text"))
    }

    #[test]
    fn half_a_line_waits_for_its_other_half() {
        let place = Place::new("t stdout F a");
        let mut reader = Reader::open(&place.log()).expect("it is there");
        assert_eq!(next(&mut reader), None);
        place.append("b\nt");
        assert_eq!(next(&mut reader).as_deref(), Some("t stdout F ab\n"));
        assert_eq!(next(&mut reader), None);
    }

    #[test]
    fn a_rotated_log_is_read_to_its_end_and_then_the_next() {
        let place = Place::new("1\n2\n");
        let mut reader = Reader::open(&place.log()).expect("it is there");
        assert_eq!(next(&mut reader).as_deref(), Some("1\n"));
        fs::rename(place.log(), place.0.path().join("0.log.old")).expect("ours");
        assert_eq!(next(&mut reader).as_deref(), Some("2\n"));
        assert_eq!(next(&mut reader), None, "there is no new file yet");
        place.append("3\n");
        assert_eq!(next(&mut reader).as_deref(), Some("3\n"));
    }

    #[test]
    fn the_last_lines_are_those_that_a_person_sees() {
        let place = Place::new("t stdout F 1\nt stdout P 2\nt stdout F 2\nt stdout F 3\n");
        let mut reader = Reader::open(&place.log()).expect("it is there");
        let last = reader.last(2).expect("it can be read");
        let text: Vec<u8> = last.iter().flat_map(|line| shown(line, false).1).collect();
        assert_eq!(text, b"22\n3\n");
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let place = Place::new(&"x".repeat((1 << 20) + 5));
        let mut reader = Reader::open(&place.log()).expect("it is there");
        assert_eq!(next(&mut reader).map(|l| l.len()), Some(1 << 20));
        assert_eq!(next(&mut reader), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_us_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            shown(&bytes, true);
        }

        #[test]
        fn what_was_written_is_what_is_shown(
            payload in prop::collection::vec(any::<u8>().prop_filter("one line", |b| *b != b'\n'), 0..100),
        ) {
            let line = [b"2026-01-02T03:04:05Z stdout F ", &*payload, b"\n"].concat();
            prop_assert_eq!(shown(&line, false).1, [&*payload, b"\n"].concat());
        }
    }
}
