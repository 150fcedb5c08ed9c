//! A SPDY header block, inflated: what is read is written as it was, and comes through a connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spdy::{Connection, Event, FlowControl, Headers, Limits, Role};

fuzz_target!(|block: &[u8]| {
    let limits = Limits::default();
    let Ok(headers) = Headers::parse(block, limits.names) else { return };
    assert_eq!(headers.block(), block);
    if block.len() > limits.headers {
        return;
    }
    let [mut client, mut server] = [Role::Client, Role::Server]
        .map(|role| Connection::new(role, FlowControl::Ignored, limits));
    // Twice, since the second is told by what the first had.
    for _ in 0..2 {
        client.open(&headers, false).expect("headers within the limit");
        server.receive(client.output());
        client.written(client.output().len());
        match server.next_event() {
            Ok(Some(Event::Opened { headers: came, .. })) => assert_eq!(came, headers),
            other => assert!(block.len() > limits.control / 2, "{other:?}"),
        }
    }
});
