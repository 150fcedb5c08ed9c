//! What moby/spdystream 0.5.1 sends, as recorded from both ends of a session of its own, by a Go
//! program that did what kubectl and a streaming server do.

mod common;

use spdy::{Event, Headers, Limits, Reason, Role, Status, StreamId};

use crate::common::*;

/// Three streams, a ping, standard input to its end; a fourth stream with data, more headers and a
/// reset; the ends of the other two, a farewell.
const CLIENT: &str = "
    80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a68000000
    00ffff
    800300010000001700000003000000000000c22e555c92929907000000ffff
    800300010000001900000005000000000000c22ac5565c92925f5a02000000ffff
    800300060000000400000001
    000000030000000b6563686f2068656c6c6f0a
    0000000301000000
    800300010000001600000007000000000000c22a072a9c1201000000ffff
    0000000700000004000102ff
    80030008000000160000000782cab014e41781b39585818501000000ffff
    80030003000000080000000700000005
    0000000501000000
    0000000101000000
    80030007000000080000000000000000";

/// Replies to the three, an answer to the ping, what was printed, the outcome, both ends, a reply to
/// the fourth.
const SERVER: &str = "
    80030002000000140000000178f9e3c6a7c26260606000000000ffff
    800300020000000c00000003026100000000ffff
    800300020000000c00000005026100000000ffff
    800300060000000400000001
    000000050000000668656c6c6f0a
    00000001000000227b226d65746164617461223a7b7d2c22737461747573223a2253756363657373227d
    0000000501000000
    0000000101000000
    800300020000000c00000007026100000000ffff";

const OUTCOME: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

#[test]
fn a_server_understands_its_client() {
    let mut server = server(Limits::default());
    let events = events(&mut server, &unhex(CLIENT));
    let [error, stdin, stdout, forward] = streams(&events);
    let opened = |stream, kind| Event::Opened { stream, headers: named(kind), fin: false };
    let said = |stream, bytes: &[u8], fin| Event::Data { stream, bytes: bytes.to_vec(), fin };
    let port = Headers::new().with("port", "8080");
    let expected = [
        opened(error, "error"),
        opened(stdin, "stdin"),
        opened(stdout, "stdout"),
        said(stdin, b"echo hello\n", false),
        said(stdin, b"", true),
        opened(forward, "data"),
        said(forward, &[0, 1, 2, 0xff], false),
        Event::Headers { stream: forward, headers: port, fin: false },
        Event::Reset { stream: forward, status: Status::CANCEL },
        said(stdout, b"", true),
        said(error, b"", true),
        Event::GoAway { last: None, reason: Reason::OK },
    ];
    assert_eq!(events, expected);
    assert_eq!(written(&mut server), control(6, 0, &[0, 0, 0, 1]), "the ping is answered");
}

#[test]
fn a_client_understands_its_server() {
    let mut client = client();
    let kinds = ["error", "stdin", "stdout", "data"];
    let streams = kinds.map(|kind| client.open(&named(kind), false).unwrap());
    let [error, stdin, stdout, forward] = streams;
    let events = events(&mut client, &unhex(SERVER));
    let answered = |stream| Event::Answered { stream, headers: Headers::new(), fin: false };
    let said = |stream, bytes: &[u8], fin| Event::Data { stream, bytes: bytes.to_vec(), fin };
    let expected = [
        answered(error),
        answered(stdin),
        answered(stdout),
        said(stdout, b"hello\n", false),
        said(error, OUTCOME, false),
        said(stdout, b"", true),
        said(error, b"", true),
        answered(forward),
    ];
    assert_eq!(events, expected);
}

#[test]
fn what_it_sends_may_come_byte_by_byte() {
    for (role, bytes) in [(Role::Server, CLIENT), (Role::Client, SERVER)] {
        let [mut whole, mut cut] = [role, role].map(|role| match role {
            Role::Server => server(Limits::default()),
            Role::Client => {
                let mut client = client();
                for _ in 0..4 {
                    client.open(&named("data"), false).unwrap();
                }
                client
            }
        });
        let expected = joined(events(&mut whole, &unhex(bytes)));
        let came = unhex(bytes).iter().flat_map(|byte| events(&mut cut, &[*byte])).collect();
        assert_eq!(joined(came), expected);
    }
}

fn streams<const N: usize>(events: &[Event]) -> [StreamId; N] {
    let opened = events.iter().filter_map(|event| match event {
        Event::Opened { stream, .. } => Some(*stream),
        _ => None,
    });
    let streams: Vec<StreamId> = opened.collect();
    assert!(streams.iter().map(|stream| stream.number()).eq([1, 3, 5, 7]));
    streams.try_into().expect("N streams")
}
