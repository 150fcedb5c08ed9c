//! What a peer sends on a SPDY connection: however it is cut the same is understood, the limits hold,
//! and once all is consumed and written there is room for more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spdy::{Connection, Event, Fatal, FlowControl, Headers, Limits, Role};

const LIMITS: Limits =
    Limits { streams: 8, control: 4096, headers: 4096, names: 20, held: 8192, output: 2048 };

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, cut, bytes) = input;
    let role = if kind & 1 == 0 { Role::Server } else { Role::Client };
    let flow = if kind & 2 == 0 { FlowControl::Ignored } else { FlowControl::Honoured };
    let start = || start(role, flow);
    let [mut whole, mut parts] = [start(), start()];
    let told = hear(&mut whole, bytes, bytes.len().max(1));
    assert_eq!(told, hear(&mut parts, bytes, usize::from(cut).max(1)));
    assert_eq!(whole.output(), parts.output());
    live(&mut start(), bytes, usize::from(cut).max(1));
});

/// A client has streams for the peer to answer.
fn start(role: Role, flow: FlowControl) -> Connection {
    let mut connection = Connection::new(role, flow, LIMITS);
    if role == Role::Client {
        for kind in ["error", "stdin", "stdout", "data"] {
            let headers = Headers::new().with("streamtype", kind);
            connection.open(&headers, false).expect("a stream can be opened at first");
        }
    }
    connection
}

/// Only listens. DATA comes in pieces that depend on the cut, so they are put together.
fn hear(by: &mut Connection, bytes: &[u8], cut: usize) -> (Vec<Event>, Option<Fatal>) {
    let mut events: Vec<Event> = Vec::new();
    for some in bytes.chunks(cut) {
        by.receive(some);
        loop {
            match (by.next_event(), events.last_mut()) {
                (
                    Ok(Some(Event::Data { stream, bytes, fin })),
                    Some(Event::Data { stream: same, bytes: all, fin: ends @ false }),
                ) if stream == *same => {
                    all.extend(bytes);
                    *ends = fin;
                }
                (Ok(Some(event)), _) => events.push(event),
                (Ok(None), _) => break,
                (Err(fatal), _) => return (events, Some(fatal)),
            }
        }
    }
    (events, None)
}

/// Answers everything, and consumes and writes it.
fn live(connection: &mut Connection, bytes: &[u8], cut: usize) {
    for some in bytes.chunks(cut) {
        connection.receive(some);
        loop {
            let output = connection.output().len();
            assert!(output < 3 * (LIMITS.output + 4096), "{output} bytes are not written");
            connection.written(output);
            match connection.next_event() {
                Ok(Some(event)) => answer(connection, event),
                Ok(None) if connection.output().is_empty() => break,
                Ok(None) => {}
                Err(fatal) => return assert!(!fatal.to_string().is_empty()),
            }
            assert!(connection.streams().count() <= LIMITS.streams);
        }
        assert!(connection.wants_input());
    }
}

fn answer(connection: &mut Connection, event: Event) {
    match event {
        Event::Opened { stream, headers, .. } => {
            let replied = connection.reply(stream, &headers);
            assert!(replied.is_ok() || connection.streams().all(|open| open != stream));
        }
        Event::Data { stream, bytes, fin } => {
            let room = connection.room(stream);
            if let Ok(sent) = connection.data(stream, &bytes, fin) {
                assert_eq!(sent, room.min(bytes.len()));
            }
            connection.consumed(stream, bytes.len());
        }
        Event::Reset { stream, .. } => {
            assert!(connection.streams().all(|open| open != stream));
            assert_eq!(connection.room(stream), 0);
        }
        Event::Answered { .. } | Event::Headers { .. } | Event::GoAway { .. } => {}
    }
}
