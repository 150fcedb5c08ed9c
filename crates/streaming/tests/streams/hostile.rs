//! Clients that do what they should not. They are to harm only themselves.

use std::time::Duration;

use futures_util::SinkExt as _;
use streaming::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    place::{Place, attach, connect, exec, forward, parts, until, within},
    spdy_client::{Client as Spdy, upgrade},
    ws_client::Client as WebSocket,
};

/// A server that waits for nobody.
async fn impatient() -> Place {
    let quick = Duration::from_millis(100);
    Place::with(Config { creation: quick, ..Config::default() }).await
}

#[tokio::test]
async fn a_client_that_does_not_open_its_streams_is_not_waited_for() {
    let place = impatient().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    client.finish().await;
    assert!(client.said_goodbye);
    drop(client);
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, "portforward.k8s.io").await;
    let error = client.stream(&[("streamtype", "error"), ("port", "80")]).await;
    client.until(|client| client.heard(error).ended).await;
    assert_eq!(client.text(error), "timed out waiting for the stream for data");
    let data = client.stream(&[("streamtype", "data"), ("port", "80")]).await;
    client.until(|client| client.heard(data).reset.is_some()).await;
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn where_nothing_moves_the_connection_ends() {
    let idle = Duration::from_millis(100);
    let place = Place::with(Config { idle, ..Config::default() }).await;
    let url = place.server.url(exec(&["hang"], "o")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    client.typed("stdout").await;
    client.finish().await;
    drop(client);
    let url = place.server.url(exec(&["hang"], "o")).unwrap();
    let (_, why) = WebSocket::open(&url, "v4.channel.k8s.io").await.finish().await;
    assert!(why.is_some());
    let url = place.server.url(forward(&[])).unwrap();
    Spdy::open(&url, "portforward.k8s.io").await.finish().await;
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn garbage_ends_the_connection_that_it_comes_on() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let mut kept = Spdy::open(&url, "v4.channel.k8s.io").await;
    kept.typed("error").await;
    let (stdin, stdout) = (kept.typed("stdin").await, kept.typed("stdout").await);
    for ask in [exec(&["cat"], "io"), forward(&[])] {
        let spdy = if ask == forward(&[]) { "portforward.k8s.io" } else { "v4.channel.k8s.io" };
        let (mut socket, _) = upgrade(&place.server.url(ask.clone()).unwrap(), spdy).await;
        socket.write_all(&[0x80; 4096]).await.unwrap();
        let mut rest = Vec::new();
        within(socket.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest[..4], [0x80, 3, 0, 7], "it is told so");
    }
    let url = place.server.url(forward(&[])).unwrap();
    let mut tunnel = WebSocket::open(&url, "SPDY/3.1+portforward.k8s.io").await;
    tunnel.say("no SPDY").await;
    let Message::Close(Some(why)) = tunnel.next().await else { panic!("it is the end") };
    assert_eq!(why.code, CloseCode::Unsupported);
    drop(tunnel);
    kept.send(stdin, b"fine").await;
    kept.until(|client| client.text(stdout) == "fine").await;
    drop(kept);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_no_frame_ends_a_websocket() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let mut client = WebSocket::open(&url, "v5.channel.k8s.io").await;
    client.hear().await;
    client.0.get_mut().write_all(b"\x82\x05hello").await.unwrap();
    let Message::Close(Some(why)) = client.next().await else { panic!("it is the end") };
    assert_eq!(why.code, CloseCode::Protocol, "it is not masked");
    client.ends().await;
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_takes_its_command_with_it() {
    let place = Place::new().await;
    for ask in [exec(&["hang"], "io"), attach("hang", "io")] {
        let url = place.server.url(ask).unwrap();
        let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
        for kind in ["error", "stdin", "stdout"] {
            client.typed(kind).await;
        }
        within(place.fake.alive.come_to(1)).await;
        drop(client);
        place.is_empty().await;
    }
    let url = place.server.url(exec(&["hang"], "io")).unwrap();
    let mut client = WebSocket::open(&url, "v4.channel.k8s.io").await;
    within(place.fake.alive.come_to(1)).await;
    assert_eq!(client.hear().await, (1, Vec::new()));
    within(client.0.close(None)).await.unwrap();
    client.ends().await;
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_while_nothing_of_its_is_read() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["check"], "io")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    let (stdin, _) = (client.typed("stdin").await, client.typed("stdout").await);
    // More than the server takes, for a command that takes nothing.
    client.send(stdin, &vec![1; 3 << 19]).await;
    until("the server is full", || place.server.load().queued >= 15 << 16).await;
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_is_gone() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["hang"], "o")).unwrap();
    let (mut socket, _) = upgrade(&url, "v4.channel.k8s.io").await;
    socket.shutdown().await.unwrap();
    assert_eq!(within(socket.read(&mut [0])).await.unwrap(), 0);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn ten_thousand_streams_are_refused_but_for_a_few() {
    let place = Place::new().await;
    let asks = [("v4.channel.k8s.io", exec(&["cat"], "i")), ("portforward.k8s.io", forward(&[]))];
    for (protocol, ask) in asks {
        let url = place.server.url(ask).unwrap();
        let mut client = Spdy::open(&url, protocol).await;
        let mut streams = Vec::new();
        for at in 0..10_000 {
            let request = at.to_string();
            let headers = [("streamtype", "error"), ("port", "80"), ("requestid", &*request)];
            streams.push(client.begin(&headers));
            if at % 100 == 0 {
                client.flush().await;
            }
            assert!(place.server.load().queued < 2 << 20);
        }
        let is_told = |client: &Spdy<_>, stream| {
            let heard = client.heard(stream);
            heard.answered || heard.reset.is_some()
        };
        client.until(|client| streams.iter().all(|stream| is_told(client, *stream))).await;
        let taken = streams.iter().filter(|stream| client.heard(**stream).reset.is_none()).count();
        assert!((1..=1024).contains(&taken), "{taken}");
        drop(client);
        place.is_empty().await;
    }
    place.stop().await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_without_end_are_not_piled_up() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let mut client = Spdy::open(&url, "portforward.k8s.io").await;
    for at in 0..20_000 {
        let request = at.to_string();
        for kind in ["error", "data"] {
            let headers = [("streamtype", kind), ("port", "1"), ("requestid", &*request)];
            let stream = client.begin(&headers);
            client.connection.reset(stream, spdy::Status::CANCEL);
        }
        if at % 100 == 0 {
            client.flush().await;
            assert!(place.server.load().queued < 2 << 20);
        }
    }
    client.flush().await;
    let last = client.stream(&[("streamtype", "error"), ("port", "80"), ("requestid", "x")]).await;
    let data = client.stream(&[("streamtype", "data"), ("port", "80"), ("requestid", "x")]).await;
    client.until(|client| client.text(data) == "hello").await;
    assert_eq!(client.heard(last).reset, None);
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn who_shows_no_token_keeps_nobody_from_being_served() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["say", "out", "", "0"], "o")).unwrap();
    let mut silent = Vec::new();
    // More than are waited for at one time.
    for _ in 0..500 {
        silent.push(connect(&url).await);
    }
    let mut long = connect(&url).await;
    let head = format!("GET {} HTTP/1.1\r\nX: {}\r\n\r\n", parts(&url).1, "x".repeat(1 << 20));
    // It may be cut off before it has said all.
    let _ = long.write_all(head.as_bytes()).await;
    let mut client = WebSocket::open(&url, "v4.channel.k8s.io").await;
    assert_eq!(client.finish().await.0[1], b"out");
    drop((silent, long, client));
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn the_end_of_the_server_is_the_end_of_all_that_it_serves() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["hang"], "o")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    client.typed("stdout").await;
    within(place.fake.alive.come_to(1)).await;
    place.stop().await;
    client.finish().await;
}

#[tokio::test]
async fn pings_are_answered_and_fragments_are_put_together() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["cat"], "io")).unwrap();
    let mut client = WebSocket::open(&url, "v5.channel.k8s.io").await;
    client.hear().await;
    within(client.0.send(Message::Ping("are you there".into()))).await.unwrap();
    assert_eq!(client.next().await, Message::Pong("are you there".into()));
    // "\0he" and "llo" in two frames, with a mask of zeros.
    let frames = b"\x02\x83\0\0\0\0\0he\x80\x83\0\0\0\0llo";
    client.0.get_mut().write_all(frames).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 5 {
        heard.extend(client.hear().await.1);
    }
    assert_eq!(heard, b"hello");
    within(client.0.close(None)).await.unwrap();
    client.ends().await;
    drop(client);
    place.is_empty().await;
    place.stop().await;
}
