//! What channels make of messages.

use proptest::prelude::*;

use super::*;
use crate::websocket::probe::{Heard, hear};

/// A short message as a client sends it, with a mask that leaves it as it is.
fn message(first: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], bytes].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    message(0x81, bytes)
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    message(0x82, bytes)
}

#[test]
fn stdin_and_sizes_are_heard_and_nothing_else() {
    let sent = [&[0, b'a'][..], &[4, b'{'], &[1, b'x'], &[200, b'x'], &[], &[0], &[0, b'b']];
    let sent: Vec<u8> = sent.into_iter().flat_map(binary).collect();
    let heard = hear(false, false, &[&sent]).unwrap();
    assert_eq!(heard.said, [b"ab".to_vec(), b"{".to_vec()]);
    assert!(heard.answers.is_empty() && !heard.ended);
}

#[test]
fn a_channel_is_closed_where_that_is_spoken_and_is_a_number_elsewhere() {
    let sent = [binary(&[0, b'a']), binary(&[255, 0]), binary(&[0, b'b'])].concat();
    let closed = hear(false, true, &[&sent]).unwrap();
    assert_eq!((closed.ended, &*closed.said[0]), (true, &b"a"[..]));
    let ignored = hear(false, false, &[&sent]).unwrap();
    assert_eq!((ignored.ended, &*ignored.said[0]), (false, &b"ab"[..]));
    for wrong in [&[255][..], &[255, 9], &[255, 0, 0]] {
        assert!(hear(false, true, &[&binary(wrong)]).is_err(), "{wrong:?}");
    }
    let twice = [binary(&[255, 0]), binary(&[255, 0]), binary(&[255, 1])].concat();
    assert!(hear(false, true, &[&twice]).unwrap().ended);
}

#[test]
fn base64_is_read_in_whatever_pieces_it_comes_and_must_be_whole() {
    let sent = [message(0x01, b"0aGV"), message(0x00, b"s"), message(0x80, b"bG8=")].concat();
    assert_eq!(hear(true, false, &[&sent]).unwrap().said[0], b"hello");
    for wrong in [&b"0aGVsbG8"[..], b"0aGVsbG8=aGVs", b"0====", b"0a b="] {
        assert!(hear(true, false, &[&text(wrong)]).is_err(), "{wrong:?}");
    }
    let elsewhere = [text(b"/x"), text(b"9!"), text(b"4ezA="), text(b"0")].concat();
    assert_eq!(hear(true, false, &[&elsewhere]).unwrap().said[1], b"{0");
}

#[test]
fn what_nobody_takes_stops_the_reading() {
    let access = vec![Access::Sends];
    let coding = Coding { base64: false, closes: false };
    let mut channels = Channels::new(coding, access);
    let (mut sent, mut held) = (0, 0);
    while channels.wants_input() {
        channels.receive(&binary(&[0; 100]));
        sent += 99;
        while let Some(Event::Data { bytes, .. }) = channels.next_event().unwrap() {
            held += bytes.len();
        }
    }
    assert!(held == sent && (HELD..HELD + 100).contains(&held));
    channels.receive(&binary(&[0; 100]));
    assert!(channels.next_event().unwrap().is_none());
    channels.consumed(0, held);
    assert!(channels.wants_input() && channels.next_event().unwrap().is_some());
}

#[test]
fn what_is_sent_is_cut_into_messages_that_fit() {
    for base64 in [false, true] {
        let mut channels = Channels::new(Coding { base64, closes: false }, Vec::new());
        let (bytes, mut sent) = (vec![1; 1 << 20], 0);
        loop {
            match channels.send(1, &bytes, false).unwrap() {
                0 => break,
                n => sent += n,
            }
        }
        assert!(sent > 100 << 10);
        assert!(channels.output().len() < (256 << 10) + MESSAGE + 10);
    }
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| binary(&bytes)),
        "[04][A-Za-z0-9+/]{0,9}={0,2}".prop_map(|words| text(words.as_bytes())),
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| binary(&[255, a & 7, b][..2])),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| message(0x89, &bytes)),
    ];
    prop::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn nothing_panics_and_all_is_the_same_however_it_is_cut(
        bytes in anything(), base64: bool, closes: bool, size in 1_usize..20,
    ) {
        let whole = hear(base64, closes, &[&bytes]);
        let cut: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(hear(base64, closes, &cut), whole);
    }

    #[test]
    fn what_is_said_is_heard(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..9),
        base64: bool,
    ) {
        let say = |word: &Vec<u8>| match base64 {
            false => binary(&[&[0], word.as_slice()].concat()),
            true => text(format!("0{}", STANDARD.encode(word)).as_bytes()),
        };
        let sent: Vec<u8> = words.iter().flat_map(say).collect();
        let said = [words.concat(), Vec::new()];
        prop_assert_eq!(hear(base64, true, &[&sent]), Ok(Heard { said, ..Heard::default() }));
    }
}
