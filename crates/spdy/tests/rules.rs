//! What a server puts up with from a client, and what it does not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use spdy::{Connection, Event, FlowControl, Headers, Limits, Reason, Refused, Role, Status};

use crate::common::*;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// Both ends, with the stream 1 open.
fn pair() -> (Connection, Connection, spdy::StreamId) {
    pair_within(Limits::default())
}

fn pair_within(limits: Limits) -> (Connection, Connection, spdy::StreamId) {
    let (mut client, mut server) = (client(), server(limits));
    let stream = opened(&mut client, &mut server);
    (client, server, stream)
}

fn said(stream: spdy::StreamId, bytes: &[u8], fin: bool) -> Event {
    Event::Data { stream, bytes: bytes.to_vec(), fin }
}

/// A SYN_STREAM as a client begins with, but of this number.
fn numbered(number: u32) -> Vec<u8> {
    let mut client = client();
    client.open(&named("data"), false).unwrap();
    let mut frame = written(&mut client);
    frame[8..12].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn each_half_of_a_stream_is_closed_by_itself() {
    let (mut client, mut server, stream) = pair();
    assert_eq!(client.data(stream, b"question", true), Ok(8));
    assert_eq!(carry(&mut client, &mut server), [said(stream, b"question", true)]);
    assert_eq!(client.data(stream, b"more", false), Err(Refused::Ended(stream)));
    assert_eq!(server.data(stream, b"ans", false), Ok(3));
    assert_eq!(server.data(stream, b"wer", true), Ok(3));
    let answer = joined(carry(&mut server, &mut client));
    assert_eq!(answer, [said(stream, b"answer", true)]);
    server.consumed(stream, 8);
    assert_eq!(server.streams().count(), 0);
    assert_eq!(server.data(stream, b"more", false), Err(Refused::Closed(stream)));
}

#[test]
fn a_stream_of_which_something_is_held_is_not_forgotten() {
    let limits = Limits { streams: 1, ..Limits::default() };
    let (mut client, mut server, first) = pair_within(limits);
    client.data(first, b"four", true).unwrap();
    carry(&mut client, &mut server);
    server.data(first, b"", true).unwrap();
    carry(&mut server, &mut client);
    let second = client.open(&named("data"), false).unwrap();
    assert_eq!(carry(&mut client, &mut server), []);
    let refused = Event::Reset { stream: second, status: Status::REFUSED_STREAM };
    assert_eq!(carry(&mut server, &mut client), [refused]);
    server.consumed(first, 4);
    client.open(&named("data"), false).unwrap();
    assert!(matches!(*carry(&mut client, &mut server), [Event::Opened { .. }]));
}

#[test]
fn a_reset_ends_both_halves_and_is_told_once() {
    let (mut client, mut server, stream) = pair();
    client.data(stream, b"lost", false).unwrap();
    server.reset(stream, Status::CANCEL);
    server.reset(stream, Status::CANCEL);
    assert_eq!(carry(&mut client, &mut server), [], "it was under way");
    let reset = Event::Reset { stream, status: Status::CANCEL };
    assert_eq!(carry(&mut server, &mut client), [reset]);
    assert_eq!(client.data(stream, b"more", false), Err(Refused::Closed(stream)));
    assert_eq!(server.room(stream), 0);
}

#[test]
fn what_is_under_way_to_a_stream_that_was_reset_within_a_frame_is_dropped() {
    let (mut client, mut server, stream) = pair();
    client.data(stream, b"first half, second half", true).unwrap();
    let bytes = written(&mut client);
    let (first, second) = bytes.split_at(19);
    assert_eq!(events(&mut server, first), [said(stream, b"first half,", false)]);
    server.reset(stream, Status::CANCEL);
    assert_eq!(events(&mut server, second), []);
    assert!(matches!(*events(&mut server, &numbered_after(&mut client)), [Event::Opened { .. }]));
}

fn numbered_after(client: &mut Connection) -> Vec<u8> {
    client.open(&named("data"), false).unwrap();
    written(client)
}

#[test]
fn nothing_is_sent_on_a_stream_before_its_reply() {
    let (mut client, mut server) = (client(), server(Limits::default()));
    let stream = client.open(&named("data"), false).unwrap();
    carry(&mut client, &mut server);
    for end in [&mut client, &mut server] {
        assert_eq!(end.room(stream), 0);
        assert_eq!(end.data(stream, b"early", true), Err(Refused::Unanswered(stream)));
    }
    assert_eq!(client.reply(stream, &Headers::new()), Err(Refused::Answered(stream)));
    server.reply(stream, &Headers::new()).unwrap();
    assert_eq!(server.reply(stream, &Headers::new()), Err(Refused::Answered(stream)));
    carry(&mut server, &mut client);
    assert_eq!(client.data(stream, b"in time", true), Ok(7));
}

#[test]
fn a_stream_may_be_opened_with_one_half_closed() {
    let (mut client, mut server) = (client(), server(Limits::default()));
    let stream = client.open(&named("error"), true).unwrap();
    let opened = Event::Opened { stream, headers: named("error"), fin: true };
    assert_eq!(carry(&mut client, &mut server), [opened]);

    client.open(&named("stdin"), false).unwrap();
    let mut frame = written(&mut client);
    frame[4] = UNIDIRECTIONAL;
    let events = events(&mut server, &frame);
    let [Event::Opened { stream, fin: false, .. }] = *events else { panic!("{events:?}") };
    server.reply(stream, &Headers::new()).unwrap();
    assert_eq!(server.data(stream, b"no", false), Err(Refused::Ended(stream)));
}

#[test]
fn a_stream_that_ends_twice_is_reset() {
    let (_, mut server, stream) = pair();
    assert_eq!(events(&mut server, &data(1, FIN, b"end")), [said(stream, b"end", true)]);
    let status = Status::STREAM_ALREADY_CLOSED;
    assert_eq!(events(&mut server, &data(1, FIN, b"end")), [Event::Reset { stream, status }]);
    assert_eq!(written(&mut server), reset(1, status.0));
    assert_eq!(events(&mut server, &data(1, FIN, b"end")), [], "and is closed by now");
    assert_eq!(written(&mut server), []);
}

#[test]
fn data_on_a_stream_that_never_was_is_answered_by_a_reset() {
    let (_, mut server, _) = pair();
    for number in [2, 3, 0x7fff_ffff] {
        assert_eq!(events(&mut server, &data(number, 0, b"who?")), []);
        assert_eq!(written(&mut server), reset(number, Status::INVALID_STREAM.0));
    }
}

#[test]
fn a_reply_to_a_stream_that_waits_for_none_resets_it() {
    let (mut client, mut server, stream) = pair();
    assert_eq!(opened(&mut client, &mut server).number(), 3);
    let second = client.open(&named("data"), false).unwrap();
    carry(&mut client, &mut server);
    server.reply(second, &Headers::new()).unwrap();
    let mut reply = written(&mut server);
    reply[8..12].copy_from_slice(&1u32.to_be_bytes());
    let status = Status::STREAM_IN_USE;
    assert_eq!(events(&mut client, &reply), [Event::Reset { stream, status }]);
}

#[test]
fn numbers_of_streams_are_odd_and_grow() {
    let refused = |number| fatal(&mut server(Limits::default()), &numbered(number));
    assert_eq!(refused(2), "the peer opened stream 2, which is not for it to number");
    assert_eq!(refused(0), "the peer opened stream 0, which is not for it to number");

    let (mut client, mut server, stream) = pair();
    client.open(&named("data"), false).unwrap();
    let mut again = written(&mut client);
    again[8..12].copy_from_slice(&1u32.to_be_bytes());
    let status = Status::PROTOCOL_ERROR;
    assert_eq!(events(&mut server, &again), [Event::Reset { stream, status }]);
    assert_eq!(written(&mut server), reset(1, status.0));
}

#[test]
fn pings_of_the_client_are_echoed_and_others_are_not() {
    let mut server = server(Limits::default());
    let pings = [control(6, 0, &[0, 0, 0, 7]), control(6, 0, &[0, 0, 0, 8])].concat();
    assert_eq!(events(&mut server, &pings), []);
    assert_eq!(written(&mut server), control(6, 0, &[0, 0, 0, 7]));
}

#[test]
fn frames_of_unknown_kinds_are_skipped() {
    let mut server = server(Limits::default());
    let bytes = [control(10, 9, b"credentials"), control(99, 0, b""), numbered(1)].concat();
    assert!(matches!(*events(&mut server, &bytes), [Event::Opened { .. }]));
}

#[test]
fn after_a_farewell_open_streams_go_on_and_new_ones_are_not_seen() {
    let (mut client, mut server, stream) = pair();
    let second = client.open(&named("data"), false).unwrap();
    server.go_away(Reason::OK);
    server.go_away(Reason::INTERNAL_ERROR);
    let farewell = Event::GoAway { last: Some(stream), reason: Reason::OK };
    assert_eq!(carry(&mut server, &mut client), [farewell]);
    assert_eq!(client.open(&named("data"), false), Err(Refused::Leaving));
    client.data(stream, b"last words", true).unwrap();
    assert_eq!(carry(&mut client, &mut server), [said(stream, b"last words", true)]);
    assert_eq!(events(&mut server, &data(second.number(), 0, b"nobody")), []);
    assert_eq!(written(&mut server), []);
}

#[test]
fn what_is_no_spdy_is_told_in_words_and_ends_the_connection() {
    let said = |bytes: &[u8]| {
        let mut server = server(Limits::default());
        let said = fatal(&mut server, bytes);
        assert_eq!(written(&mut server), control(7, 0, &[0, 0, 0, 0, 0, 0, 0, 1]), "GOAWAY");
        assert!(!server.wants_input());
        assert_eq!(fatal(&mut server, &numbered(1)), said, "and there is no way back");
        said
    };
    assert_eq!(
        said(b"GET / HTTP/1.1\r\n"),
        "a DATA frame came that is malformed: it has unknown flags"
    );
    assert_eq!(
        said(&[0x80, 2, 0, 1, 0, 0, 0, 0]),
        "the peer speaks SPDY version 2, and 3 was agreed on"
    );
    assert_eq!(said(&data(0, 0, b"")), "a DATA frame came that is malformed: it is of stream 0");
    assert_eq!(
        said(&control(1, 0, b"\0\0\0\x01\0\0\0\0\0\0no zlib")),
        "a header block came that cannot be read: it is no continuation of a zlib stream with the \
         dictionary of SPDY/3"
    );
    let names = ["SYN_STREAM", "SYN_REPLY", "RST_STREAM", "SETTINGS", "PING", "GOAWAY", "HEADERS"];
    for (kind, name) in [1, 2, 3, 4, 6, 7, 8].into_iter().zip(names) {
        let fault = format!("a {name} frame came that is malformed: its length is not right");
        assert_eq!(said(&control(kind, 0, b"???")), fault);
    }
    let many = control(4, 0, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 7, 0, 0, 0, 0]);
    assert!(said(&many).contains("SETTINGS frame came that is malformed"));
}

#[test]
fn a_control_frame_is_refused_by_its_length_before_it_has_come() {
    let limits = Limits { control: 1000, ..Limits::default() };
    let head = [0x80, 3, 0, 1, 0, 0, 3, 0xe9];
    let said = fatal(&mut server(limits), &head);
    assert_eq!(said, "a control frame of 1001 bytes came; at most 1000 are taken");
    assert_eq!(events(&mut server(limits), &[0x80, 3, 0, 1, 0, 0, 3, 0xe8]), []);
}

#[test]
fn a_header_block_is_refused_by_its_size_and_by_its_number_of_names() {
    let limits = Limits { headers: 1000, names: 5, ..Limits::default() };
    let said = |headers: Headers| {
        let limits = Limits { headers: 1 << 20, ..Limits::default() };
        let mut client = Connection::new(Role::Client, FlowControl::Ignored, limits);
        client.open(&headers, false).unwrap();
        (written(&mut client), headers)
    };
    let (bomb, headers) = said(Headers::new().with("bomb", &"0".repeat(1_000_000)));
    assert!(bomb.len() < 2000, "{}", bomb.len());
    let refused = fatal(&mut server(limits), &bomb);
    assert_eq!(
        refused,
        "a header block came that cannot be read: it is larger than 1000 bytes when inflated"
    );
    let unsent = client().open(&headers, false).unwrap_err();
    assert_eq!(unsent, Refused::TooLarge { length: 1_000_016, limit: 65_536 });

    let many = (0..6).fold(Headers::new(), |all, n| all.with(&n.to_string(), ""));
    let refused = fatal(&mut server(limits), &said(many).0);
    assert_eq!(
        refused,
        "a header block came that cannot be read: it has 6 headers; at most 5 are taken"
    );
}

#[test]
fn a_stream_above_the_limit_is_refused_and_its_headers_are_read_all_the_same() {
    let limits = Limits { streams: 1, ..Limits::default() };
    let (mut client, mut server, first) = pair_within(limits);
    let second = client.open(&named("another"), false).unwrap();
    assert_eq!(carry(&mut client, &mut server), []);
    let refused = Event::Reset { stream: second, status: Status::REFUSED_STREAM };
    assert_eq!(carry(&mut server, &mut client), [refused]);
    assert_eq!(events(&mut server, &data(3, 0, b"sent before that")), []);
    client.reset(first, Status::CANCEL);
    let stream = client.open(&named("another"), false).unwrap();
    let events = carry(&mut client, &mut server);
    let opened = Event::Opened { stream, headers: named("another"), fin: false };
    assert_eq!(events, [Event::Reset { stream: first, status: Status::CANCEL }, opened]);
}

#[test]
fn a_flood_that_asks_for_answers_waits_until_they_are_read() {
    let limits = Limits { output: 1000, ..Limits::default() };
    let floods = [control(6, 0, &[0, 0, 0, 1]), data(99, 0, b"")];
    for flood in floods {
        let mut server = server(limits);
        events(&mut server, &numbered(3));
        server.receive(&flood.repeat(10_000));
        assert_eq!(told(&mut server).1, None);
        let unread = server.output().len();
        assert!((1000..6000).contains(&unread), "{unread}");
        assert!(!server.wants_input());
        assert_eq!(server.next_event(), Ok(None));
        let mut answers = 0;
        while !server.output().is_empty() {
            let some = server.output().len().min(300);
            server.written(some);
            answers += some;
            assert_eq!(told(&mut server).1, None);
        }
        assert!(server.wants_input());
        assert!(answers >= 120_000, "every one was answered at last: {answers}");
    }
}
