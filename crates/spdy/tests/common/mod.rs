//! What the tests have in common: both ends of a connection, frames by hand.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use spdy::{Connection, Event, Fatal, FlowControl, Headers, Limits, Role, StreamId};

pub fn server(limits: Limits) -> Connection {
    Connection::new(Role::Server, FlowControl::Ignored, limits)
}

pub fn client() -> Connection {
    Connection::new(Role::Client, FlowControl::Ignored, Limits::default())
}

pub fn named(kind: &str) -> Headers {
    Headers::new().with("streamType", kind)
}

/// All that there is to write.
pub fn written(from: &mut Connection) -> Vec<u8> {
    let bytes = from.output().to_vec();
    from.written(bytes.len());
    bytes
}

/// All that is to be told, until there is no more or an error.
pub fn told(by: &mut Connection) -> (Vec<Event>, Option<Fatal>) {
    let mut events = Vec::new();
    loop {
        match by.next_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(fatal) => return (events, Some(fatal)),
        }
    }
}

/// What it makes of these bytes.
pub fn events(by: &mut Connection, bytes: &[u8]) -> Vec<Event> {
    by.receive(bytes);
    let (events, fatal) = told(by);
    assert_eq!(fatal, None);
    events
}

/// What it says to these bytes instead of going on.
pub fn fatal(by: &mut Connection, bytes: &[u8]) -> String {
    by.receive(bytes);
    told(by).1.expect("an error").to_string()
}

/// What `to` makes of all that `from` has to write.
pub fn carry(from: &mut Connection, to: &mut Connection) -> Vec<Event> {
    let bytes = written(from);
    events(to, &bytes)
}

/// A stream that is open and answered, by both ends.
pub fn opened(client: &mut Connection, server: &mut Connection) -> StreamId {
    let stream = client.open(&named("data"), false).unwrap();
    carry(client, server);
    server.reply(stream, &Headers::new()).unwrap();
    carry(server, client);
    stream
}

pub fn control(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3, 0, kind];
    frame.extend(after_name(flags, body));
    frame
}

pub fn data(stream: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = stream.to_be_bytes().to_vec();
    frame.extend(after_name(flags, body));
    frame
}

fn after_name(flags: u8, body: &[u8]) -> Vec<u8> {
    let [.., x, y, z] = body.len().to_be_bytes();
    [&[flags, x, y, z], body].concat()
}

/// RST_STREAM.
pub fn reset(stream: u32, status: u32) -> Vec<u8> {
    control(3, 0, &[stream.to_be_bytes(), status.to_be_bytes()].concat())
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, delta: u32) -> Vec<u8> {
    control(9, 0, &[stream.to_be_bytes(), delta.to_be_bytes()].concat())
}

/// SETTINGS of one value.
pub fn setting(id: u32, value: u32) -> Vec<u8> {
    control(4, 0, &[1, id, value].map(u32::to_be_bytes).concat())
}

/// DATA frames may be cut anywhere, and so are told in any number of pieces.
pub fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut whole: Vec<Event> = Vec::new();
    for event in events {
        match (whole.last_mut(), event) {
            (
                Some(Event::Data { stream, bytes, fin }),
                Event::Data { stream: same, bytes: more, fin: ends },
            ) if *stream == same && !*fin => {
                bytes.extend(more);
                *fin = ends;
            }
            (_, event) => whole.push(event),
        }
    }
    whole
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |two: &[char]| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
