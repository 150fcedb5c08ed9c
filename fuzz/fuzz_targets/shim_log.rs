//! A container's output on its way into the log: however it comes in pieces, what is read from the
//! log is what was written, and each line is of the form that a kubelet reads.
//!
//! A byte from 0xf0 on stands for the end of a piece, after as many kilobytes of one letter as its
//! low half says: so a short input makes the long lines that have to be cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::log::{LONGEST, Lines, Stream};

/// Enough bytes for several of the longest lines; more would only be slow.
const MOST: usize = 8 * LONGEST;
const TIME: &[u8] = b"2026-01-02T03:04:05.000000006Z";

fuzz_target!(|bytes: &[u8]| {
    let (mut lines, mut log, mut whole) = (Lines::new(Stream::Stderr), Vec::new(), Vec::new());
    for piece in bytes.split_inclusive(|byte| *byte >= 0xf0) {
        let piece = grown(piece);
        if whole.len() + piece.len() > MOST {
            break;
        }
        lines.feed(&piece, TIME, &mut log);
        whole.extend_from_slice(&piece);
    }
    lines.finish(TIME, &mut log);
    assert!(read_back(&log) == whole, "the log reads otherwise than what was written");
});

fn grown(piece: &[u8]) -> Vec<u8> {
    let mut grown = piece.to_vec();
    if let Some(end) = grown.pop_if(|byte| *byte >= 0xf0) {
        grown.resize(grown.len() + usize::from(end & 0xf) * 1024, b'x');
    }
    grown
}

fn read_back(log: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    let Some(lines) = log.strip_suffix(b"\n") else { return whole };
    for line in lines.split(|byte| *byte == b'\n') {
        let rest = line.strip_prefix(TIME).expect("a line begins with its time");
        let rest = rest.strip_prefix(b" stderr ").expect("then comes the stream");
        let (tag, payload) = rest.split_at(2);
        assert!(payload.len() <= LONGEST);
        whole.extend_from_slice(payload);
        match tag {
            b"F " => whole.push(b'\n'),
            b"P " => assert!(!payload.is_empty()),
            _ => panic!("a tag is P or F, not {tag:?}"),
        }
    }
    whole
}
