//! How fast either end may go.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use spdy::{Connection, Event, FlowControl, Headers, Limits, Role, Status, StreamId};

use crate::common::*;

const WINDOW: usize = 64 << 10;

/// Both ends, where WINDOW_UPDATE counts, with one stream open.
fn pair(limits: Limits) -> (Connection, Connection, StreamId) {
    let [mut client, mut server] = [Role::Client, Role::Server]
        .map(|role| Connection::new(role, FlowControl::Honoured, limits));
    carry(&mut server, &mut client);
    let stream = opened(&mut client, &mut server);
    (client, server, stream)
}

fn length(events: &[Event]) -> usize {
    let lengths = events.iter().map(|event| match event {
        Event::Data { bytes, .. } => bytes.len(),
        _ => 0,
    });
    lengths.sum()
}

#[test]
fn without_flow_control_a_sender_is_bounded_by_what_is_not_written() {
    let limits = Limits { output: 100_000, ..Limits::default() };
    let (mut client, mut server) = (client(), server(limits));
    let stream = opened(&mut client, &mut server);
    let mut received = 0;
    for _ in 0..10 {
        assert_eq!(server.room(stream), 100_000);
        assert_eq!(server.data(stream, &[7; 200_000], true), Ok(100_000));
        assert_eq!(server.room(stream), 0);
        assert_eq!(server.data(stream, &[7; 200_000], true), Ok(0));
        let events = carry(&mut server, &mut client);
        assert!(events.iter().all(|event| matches!(event, Event::Data { fin: false, .. })));
        received += length(&events);
    }
    assert_eq!(received, 1_000_000);
    assert_eq!(server.data(stream, b"", true), Ok(0));
    let last = carry(&mut server, &mut client);
    assert_eq!(last, [Event::Data { stream, bytes: Vec::new(), fin: true }]);
}

#[test]
fn without_flow_control_a_receiver_wants_no_more_than_it_may_hold() {
    let limits = Limits { held: 100_000, ..Limits::default() };
    let (mut client, mut server) = (client(), server(limits));
    let streams = [opened(&mut client, &mut server), opened(&mut client, &mut server)];
    for stream in streams {
        client.data(stream, &[7; 60_000], false).unwrap();
        assert!(server.wants_input());
        assert_eq!(length(&carry(&mut client, &mut server)), 60_000);
    }
    assert!(!server.wants_input());
    server.consumed(streams[0], 60_000);
    assert!(server.wants_input());
    assert_eq!(written(&mut server), [], "its peer would not read that");
    client.data(streams[0], &[7; 60_000], false).unwrap();
    carry(&mut client, &mut server);
    assert!(!server.wants_input());
    server.reset(streams[1], Status::CANCEL);
    assert!(server.wants_input(), "nothing is held of a stream that is reset");
}

#[test]
fn many_small_frames_count_for_more_than_their_bytes() {
    let limits = Limits { held: 100_000, ..Limits::default() };
    let (mut client, mut server) = (client(), server(limits));
    let stream = opened(&mut client, &mut server);
    let mut frames = 0;
    while server.wants_input() {
        frames += events(&mut server, &data(1, 0, b"!")).len();
    }
    assert!((1000..2000).contains(&frames), "{frames}");
    server.consumed(stream, frames);
    assert!(server.wants_input());
}

#[test]
fn a_control_frame_is_let_in_whatever_the_limits_say() {
    let limits = Limits { held: 1, ..Limits::default() };
    let mut server = server(limits);
    let bytes = [control(4, 0, &[0, 0, 0, 0]), control(6, 0, &[0, 0, 0, 1])].concat();
    for byte in bytes {
        assert!(server.wants_input());
        events(&mut server, &[byte]);
    }
    assert!(!server.output().is_empty());
}

#[test]
fn with_flow_control_a_sender_waits_for_its_receiver() {
    let (mut client, mut server, stream) = pair(Limits::default());
    assert_eq!(server.room(stream), WINDOW);
    assert_eq!(server.data(stream, &[7; 100_000], true), Ok(WINDOW));
    assert_eq!(server.room(stream), 0);
    assert_eq!(length(&carry(&mut server, &mut client)), WINDOW);
    client.consumed(stream, WINDOW / 2 - 1);
    assert_eq!(carry(&mut client, &mut server), []);
    assert_eq!(server.room(stream), 0, "so little is not worth a frame");
    client.consumed(stream, 1);
    carry(&mut client, &mut server);
    assert_eq!(server.room(stream), WINDOW / 2);
}

#[test]
fn with_flow_control_a_stream_that_is_full_stalls_no_other() {
    let (mut client, mut server, first) = pair(Limits::default());
    let second = opened(&mut client, &mut server);
    assert_eq!(client.data(first, &[7; 100_000], false), Ok(WINDOW));
    carry(&mut client, &mut server);
    for _ in 0..100 {
        assert_eq!(client.data(second, &[7; 10_000], false), Ok(10_000));
        assert_eq!(length(&carry(&mut client, &mut server)), 10_000);
        server.consumed(second, 10_000);
        carry(&mut server, &mut client);
    }
}

#[test]
fn with_flow_control_a_receiver_that_is_full_still_hears_that_it_may_send() {
    let limits = Limits { held: WINDOW, ..Limits::default() };
    let (mut client, mut server, stream) = pair(limits);
    client.data(stream, &[7; WINDOW], false).unwrap();
    server.data(stream, &[7; WINDOW], false).unwrap();
    carry(&mut server, &mut client);
    client.consumed(stream, WINDOW);
    carry(&mut client, &mut server);
    assert!(server.wants_input());
    assert_eq!(server.room(stream), WINDOW);
}

#[test]
fn with_flow_control_all_streams_together_are_bounded_too() {
    let limits = Limits { held: 100_000, ..Limits::default() };
    let (mut client, mut server, first) = pair(limits);
    let second = opened(&mut client, &mut server);
    assert_eq!(client.data(first, &[7; 100_000], false), Ok(WINDOW));
    assert_eq!(client.data(second, &[7; 100_000], false), Ok(100_000 - WINDOW));
    carry(&mut client, &mut server);
    server.reset(first, Status::CANCEL);
    carry(&mut server, &mut client);
    assert_eq!(client.room(second), 2 * WINDOW - 100_000, "what was held of the other is free");
}

#[test]
fn who_sends_more_than_flow_control_lets_it_is_reset_or_cut_off() {
    let (_, mut server, stream) = pair(Limits::default());
    let told = events(&mut server, &data(1, 0, &[7; WINDOW + 1]));
    let status = Status::FLOW_CONTROL_ERROR;
    assert_eq!(told, [Event::Reset { stream, status }]);
    assert!(written(&mut server).starts_with(&reset(1, status.0)));

    let limits = Limits { held: 0, ..Limits::default() };
    let (mut client, mut server, _) = pair(limits);
    opened(&mut client, &mut server);
    let bytes = [data(1, 0, &[7; WINDOW]), data(3, 0, b"!")].concat();
    let said = fatal(&mut server, &bytes);
    assert_eq!(said, "the peer sent 1 bytes more than flow control lets it");
}

#[test]
fn data_that_nobody_wants_does_not_use_up_what_all_may_send() {
    let (mut client, mut server, first) = pair(Limits::default());
    let second = opened(&mut client, &mut server);
    for _ in 0..50 {
        events(&mut server, &data(99, 0, &[7; WINDOW]));
    }
    server.reset(first, Status::CANCEL);
    for _ in 0..50 {
        events(&mut server, &data(1, 0, &[7; WINDOW]));
    }
    carry(&mut server, &mut client);
    assert_eq!(events(&mut server, &data(second.number(), 1, b"still here")).len(), 1);
}

#[test]
fn a_setting_of_the_window_changes_streams_that_are_open() {
    let (mut client, mut server, stream) = pair(Limits::default());
    assert_eq!(server.data(stream, &[7; 1000], false), Ok(1000));
    events(&mut server, &setting(7, 500));
    assert_eq!(server.room(stream), 0);
    events(&mut server, &window(1, 600));
    assert_eq!(server.room(stream), 100);
    events(&mut server, &setting(7, 1000));
    assert_eq!(server.room(stream), 600);
    events(&mut server, &setting(4, 1));
    carry(&mut server, &mut client);
    let second = opened(&mut client, &mut server);
    assert_eq!(server.room(second), 1000);
}

#[test]
fn a_window_that_gets_too_large_is_an_error() {
    let (_, mut server, stream) = pair(Limits::default());
    let status = Status::FLOW_CONTROL_ERROR;
    let told = events(&mut server, &window(1, 0x7fff_ffff));
    assert_eq!(told, [Event::Reset { stream, status }]);
    assert_eq!(events(&mut server, &window(1, 0x7fff_ffff)), [], "it is closed");

    let said = fatal(&mut server, &window(0, 0x7fff_ffff));
    assert_eq!(said, "a WINDOW_UPDATE frame came that is malformed: the window gets too large");
    let (_, mut server, _) = pair(Limits::default());
    let said = fatal(&mut server, &setting(7, 0x8000_0000));
    assert_eq!(said, "a SETTINGS frame came that is malformed: its window is too large");
}

#[test]
fn a_peer_that_counts_windows_is_served_where_they_are_ignored() {
    let (mut client, mut server) = (client(), server(Limits::default()));
    let stream = opened(&mut client, &mut server);
    let bytes = [setting(7, 1), window(0, 0x7fff_ffff), window(1, 0x7fff_ffff)].concat();
    assert_eq!(events(&mut server, &bytes), []);
    assert_eq!(server.data(stream, &[7; 100_000], false), Ok(100_000));
    assert_eq!(client.open(&Headers::new(), false).map(StreamId::number), Ok(3));
}
