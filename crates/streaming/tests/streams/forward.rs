//! Ports of a pod, over SPDY, over WebSocket, and over SPDY in a WebSocket.

use spdy::StreamId;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    place::{Place, forward},
    spdy_client::Client as Spdy,
    ws_client::Client as WebSocket,
};

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Opens the streams of a connection as client-go does; gives those for errors and for data.
async fn connection<S>(client: &mut Spdy<S>, port: u16, request: usize) -> (StreamId, StreamId)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (port, request) = (port.to_string(), request.to_string());
    let common = [("port", &*port), ("requestID", &*request)];
    let error = client.stream(&[common[0], common[1], ("streamType", "error")]).await;
    client.end(error);
    let data = client.stream(&[common[0], common[1], ("streamType", "data")]).await;
    (error, data)
}

#[tokio::test]
async fn halves_are_closed_one_by_one_in_both_directions() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    // The client says its last first.
    let (error, data) = connection(&mut client, 7, 0).await;
    client.send(data, b"hello").await;
    client.end(data);
    client.until(|client| client.heard(data).ended && client.heard(error).ended).await;
    assert_eq!((client.text(data), client.text(error)), ("hello".to_owned(), String::new()));
    // The pod does.
    let (error, data) = connection(&mut client, 80, 1).await;
    client.until(|client| client.heard(data).ended).await;
    client.send(data, b"still heard").await;
    assert!(!client.heard(error).ended);
    client.end(data);
    client.until(|client| client.heard(error).ended).await;
    assert_eq!(client.text(data), "hello");
    assert_eq!(client.connection.streams().count(), 0);
    within_empty(place, client).await;
}

/// The client goes, and nothing is left.
async fn within_empty<S>(place: Place, client: Spdy<S>) {
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn a_hundred_connections_at_one_time_are_each_byte_for_byte() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    hundred(&mut client).await;
    within_empty(place, client).await;
}

#[tokio::test]
async fn a_hundred_connections_in_a_tunnel_are_each_byte_for_byte() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::over(WebSocket::open(&url, TUNNEL).await.tunnel());
    hundred(&mut client).await;
    within_empty(place, client).await;
}

async fn hundred<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Spdy<S>) {
    let mut all = Vec::new();
    for request in 0..100 {
        let (error, data) = connection(client, 7, request).await;
        let bytes: Vec<u8> =
            (0..30_000).map(|at| u8::try_from((at * request) % 251).unwrap()).collect();
        all.push((error, data, bytes));
    }
    for piece in 0..3 {
        for (_, data, bytes) in &all {
            client.send(*data, &bytes[piece * 10_000..(piece + 1) * 10_000]).await;
        }
    }
    for (_, data, _) in &all {
        client.end(*data);
    }
    for (error, data, bytes) in &all {
        client.until(|client| client.heard(*data).ended && client.heard(*error).ended).await;
        assert_eq!(client.heard(*data).bytes, *bytes);
        assert_eq!(client.text(*error), "");
    }
}

#[tokio::test]
async fn a_connection_that_is_not_made_is_told_and_others_go_on() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    let (error, data) = connection(&mut client, 9, 0).await;
    client.until(|client| client.heard(error).ended && client.heard(data).reset.is_some()).await;
    assert_eq!(client.text(error), "error forwarding port 9 to pod p: connection refused");
    let (_, data) = connection(&mut client, 80, 1).await;
    client.until(|client| client.text(data) == "hello").await;
    within_empty(place, client).await;
}

#[tokio::test]
async fn a_client_that_resets_ends_only_that_connection() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    let (_, kept) = connection(&mut client, 7, 0).await;
    let (error, data) = connection(&mut client, 1, 1).await;
    client.connection.reset(data, spdy::Status::CANCEL);
    client.until(|client| client.heard(error).reset.is_some()).await;
    place.fake.alive.come_to(1).await;
    client.send(kept, b"x").await;
    client.until(|client| client.text(kept) == "x").await;
    within_empty(place, client).await;
}

#[tokio::test]
async fn an_old_client_says_no_requests() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    for _ in 0..2 {
        client.stream(&[("streamtype", "error"), ("port", "80")]).await;
        let data = client.stream(&[("streamtype", "data"), ("port", "80")]).await;
        client.until(|client| client.text(data) == "hello").await;
    }
    within_empty(place, client).await;
}

#[tokio::test]
async fn streams_that_are_for_no_port_are_reset() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    let bad = client.begin(&[("streamtype", "error"), ("port", "0")]);
    client.until(|client| client.heard(bad).reset.is_some()).await;
    let first = client.stream(&[("streamtype", "error"), ("port", "80"), ("requestid", "1")]).await;
    let again = client.begin(&[("streamtype", "error"), ("port", "80"), ("requestid", "1")]);
    client.until(|client| client.heard(again).reset.is_some()).await;
    assert_eq!(client.heard(first).reset, None);
    within_empty(place, client).await;
}

#[tokio::test]
async fn a_client_that_opens_no_more_is_served_what_it_has() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, PROTOCOL).await;
    let (_, data) = connection(&mut client, 7, 0).await;
    client.connection.go_away(spdy::Reason::OK);
    client.send(data, b"last").await;
    client.until(|client| client.text(data) == "last").await;
    client.end(data);
    client.finish().await;
    assert!(client.heard(data).ended);
    within_empty(place, client).await;
}

#[tokio::test]
async fn over_websocket_each_port_has_two_channels_and_says_its_number_first() {
    let place = Place::new().await;
    for protocol in ["v4.channel.k8s.io", ""] {
        let url = place.server.url(forward(&[7, 9])).unwrap();
        let mut client = WebSocket::open(&url, protocol).await;
        let mut greetings = Vec::new();
        for _ in 0..4 {
            greetings.push(client.hear().await);
        }
        let number = |channel: u8, port: u16| (channel, port.to_le_bytes().to_vec());
        assert_eq!(greetings, [number(0, 7), number(1, 7), number(2, 9), number(3, 9)]);
        let refused = b"error forwarding port 9 to pod p: connection refused".to_vec();
        assert_eq!(client.hear().await, (3, refused));
        client.send(0, b"hello").await;
        assert_eq!(client.hear().await, (0, b"hello".to_vec()));
    }
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_the_end_of_all_ports_is_the_end() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[9])).unwrap();
    let mut client = WebSocket::open(&url, "v4.channel.k8s.io").await;
    let (heard, why) = client.finish().await;
    assert!(heard[1].ends_with(b"refused") && why.is_some());
    drop(client);
    place.is_empty().await;
    place.stop().await;
}
