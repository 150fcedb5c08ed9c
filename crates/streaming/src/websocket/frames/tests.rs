//! Frames as a client sends them, and as it is sent them.

use proptest::prelude::*;

use super::*;

/// A frame as a client sends it.
fn frame(first: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match bytes.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long @ ..65536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
        longer => {
            frame.push(0x80 | 127);
            frame.extend((longer as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0xfe, 0x00, 0x77];
    frame.extend(mask);
    frame.extend(bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn pieces(frames: &mut Frames) -> Result<Vec<Piece>, Broken> {
    let mut pieces = Vec::new();
    while let Some(piece) = frames.next_piece()? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// What there is of messages, put together again.
fn whole(pieces: &[Piece]) -> Vec<(Kind, Vec<u8>, bool)> {
    let mut messages: Vec<(Kind, Vec<u8>, bool)> = Vec::new();
    for piece in pieces {
        if piece.first {
            messages.push((piece.kind, Vec::new(), false));
        }
        let message = messages.last_mut().expect("a message begins before it goes on");
        assert!(message.0 == piece.kind && !message.2);
        message.1.extend(&piece.bytes);
        message.2 = piece.last;
    }
    messages
}

fn broken(bytes: &[u8]) -> u16 {
    let mut frames = Frames::default();
    frames.receive(bytes);
    pieces(&mut frames).expect_err("it is not a frame of a client").code
}

#[test]
fn a_message_in_several_frames_with_a_ping_between_is_one_message() {
    let mut frames = Frames::default();
    for (first, bytes) in [(0x01, "he"), (0x89, "ping"), (0x00, "ll"), (0x80, "o"), (0x82, "")] {
        frames.receive(&frame(first, bytes.as_bytes()));
    }
    let messages = whole(&pieces(&mut frames).unwrap());
    let hello = (Kind::Text, b"hello".to_vec(), true);
    assert_eq!(messages, [hello, (Kind::Binary, Vec::new(), true)]);
    assert_eq!(frames.output(), b"\x8a\x04ping");
}

#[test]
fn what_there_is_of_a_long_message_is_passed_on() {
    let mut frames = Frames::default();
    let long = frame(0x82, &vec![7; 1 << 20]);
    frames.receive(&long[..1000]);
    let first = pieces(&mut frames).unwrap();
    assert!(first[0].first && !first[0].last && first[0].bytes == vec![7; 1000 - 14]);
    assert!(frames.wants_input() && frames.input.is_empty());
}

#[test]
fn frames_that_break_the_rules_end_the_connection() {
    assert_eq!(broken(b"GET / HTTP/1.1\r\n"), 1002);
    assert_eq!(broken(&[0x82, 0x00]), 1002, "it is not masked");
    assert_eq!(broken(&frame(0xc2, b"x")), 1002, "there is no extension");
    assert_eq!(broken(&frame(0x80, b"x")), 1002, "it goes on with nothing");
    assert_eq!(broken(&[frame(0x02, b"x"), frame(0x82, b"y")].concat()), 1002, "one in another");
    assert_eq!(broken(&frame(0x83, b"x")), 1002, "an unknown kind");
    assert_eq!(broken(&frame(0x8b, b"x")), 1002, "an unknown kind");
    assert_eq!(broken(&frame(0x09, b"x")), 1002, "a control frame in parts");
    assert_eq!(broken(&frame(0x89, &[0; 126])), 1002, "a long control frame");
    assert_eq!(broken(&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1002, "too long");
    assert_eq!(broken(&frame(0x88, &[3])), 1002, "half a reason");
    assert_eq!(broken(&frame(0x88, &1005_u16.to_be_bytes())), 1002, "a reason never sent");
}

#[test]
fn a_close_is_answered_once_and_nothing_is_read_after_it() {
    let mut frames = Frames::default();
    frames.receive(&[frame(0x88, &[3, 0xe9, b'x']), frame(0x82, b"late")].concat());
    assert_eq!(pieces(&mut frames), Ok(Vec::new()));
    assert!(frames.is_closing());
    frames.end();
    frames.send(Kind::Binary, &[], b"late");
    assert_eq!(frames.output(), [0x88, 2, 3, 0xe9]);
}

#[test]
fn a_client_that_pings_and_does_not_read_is_not_listened_to() {
    let mut frames = Frames::default();
    let ping = frame(0x89, &[0; 125]);
    for _ in 0..10_000 {
        if !frames.wants_input() {
            break;
        }
        frames.receive(&ping);
        assert_eq!(pieces(&mut frames), Ok(Vec::new()));
    }
    assert!(!frames.wants_input());
    assert!(frames.held() < OUTPUT + INPUT + 2 * ANSWERS);
    let all = frames.output().len();
    frames.written(all);
    assert!(frames.wants_input());
}

proptest! {
    #[test]
    fn messages_are_the_same_however_they_are_cut(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
        longer in prop::option::of(126_usize..70_000),
        cuts in prop::collection::vec(1_usize..400, 1..8),
    ) {
        let longer = longer.map(|length| vec![1; length]);
        let messages: Vec<Vec<u8>> = messages.into_iter().chain(longer).collect();
        let sent: Vec<u8> = messages.iter().flat_map(|message| frame(0x82, message)).collect();
        let (mut frames, mut all, mut rest) = (Frames::default(), Vec::new(), sent.as_slice());
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at(rest.len().min(*cut));
            frames.receive(piece);
            all.extend(pieces(&mut frames).unwrap());
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let expected: Vec<_> = messages.into_iter().map(|all| (Kind::Binary, all, true)).collect();
        prop_assert_eq!(whole(&all), expected);
    }

    #[test]
    fn no_input_panics(inputs in prop::collection::vec(any::<Vec<u8>>(), 0..9)) {
        let mut frames = Frames::default();
        for input in inputs {
            frames.receive(&input);
            if let Err(broken) = pieces(&mut frames) {
                frames.cut_off(broken);
            }
        }
    }
}
