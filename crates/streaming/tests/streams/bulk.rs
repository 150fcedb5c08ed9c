//! Much, through each transport, with a reader that stalls: every byte is to arrive, and the server is to
//! hold little of it.

use futures_util::{SinkExt as _, StreamExt as _};
use spdy::StreamId;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    fake::{MUCH, is_right, pattern},
    place::{Place, exec, forward, until, within},
    spdy_client::Client as Spdy,
    ws_client::Client as WebSocket,
};

/// What the server may hold for one client: 1 MiB of input and 256 KiB of output, twice over for a
/// tunnel, and the pieces in hand.
const LIMIT: usize = 2 << 20;

/// What is so much that the reader must have stalled.
const FULL: usize = 200 << 10;

fn is_bounded(place: &Place) {
    let queued = place.server.load().queued;
    assert!(queued < LIMIT, "{queued}");
}

/// Sends the pattern. The pod or command begins to take it once the server is full.
pub async fn upload<S>(place: &Place, client: &mut Spdy<S>, to: StreamId)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for at in (0..MUCH).step_by(32 << 10) {
        client.send(to, &pattern(at, 32 << 10)).await;
        is_bounded(place);
        if at == 2 << 20 {
            until("the server is full", || place.server.load().queued >= FULL).await;
            place.fake.gate.open();
        }
    }
    client.end(to);
}

/// Takes the pattern, once the server is full.
pub async fn download<S>(place: &Place, client: &mut Spdy<S>, from: StreamId)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.flush().await;
    until("the server is full", || place.server.load().queued >= FULL).await;
    let poured = place.fake.poured.load(SeqCst);
    assert!(poured < MUCH, "it is held up");
    let mut at = 0;
    while at < MUCH {
        let taken = client.take(from);
        assert!(is_right(&taken, at), "after {at}");
        at += taken.len();
        is_bounded(place);
        if at < MUCH {
            within(client.step()).await;
        }
    }
    client.until(|client| client.heard(from).ended).await;
}

pub fn good() -> String {
    format!("{MUCH} good")
}

#[tokio::test]
async fn over_spdy_much_is_fed_to_a_command_that_stalls() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["check"], "io")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    client.typed("error").await;
    let (stdin, stdout) = (client.typed("stdin").await, client.typed("stdout").await);
    upload(&place, &mut client, stdin).await;
    client.finish().await;
    assert_eq!(client.text(stdout), good());
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_spdy_much_is_said_to_a_client_that_stalls() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["pour"], "o")).unwrap();
    let mut client = Spdy::open(&url, "v4.channel.k8s.io").await;
    let (error, stdout) = (client.typed("error").await, client.typed("stdout").await);
    download(&place, &mut client, stdout).await;
    client.finish().await;
    assert!(client.text(error).contains("Success"));
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

async fn through_a_port<S>(place: Place, mut client: Spdy<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for port in ["81", "82"] {
        let common = [("port", port), ("requestid", port)];
        client.stream(&[common[0], common[1], ("streamtype", "error")]).await;
        let data = client.stream(&[common[0], common[1], ("streamtype", "data")]).await;
        if port == "82" {
            download(&place, &mut client, data).await;
        } else {
            upload(&place, &mut client, data).await;
            client.until(|client| client.heard(data).ended).await;
            assert_eq!(client.text(data), good());
        }
    }
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_spdy_much_goes_to_and_from_a_port() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let client = Spdy::open(&url, "portforward.k8s.io").await;
    through_a_port(place, client).await;
}

#[tokio::test]
async fn over_a_tunnel_much_goes_to_and_from_a_port() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[])).unwrap();
    let client = WebSocket::open(&url, "SPDY/3.1+portforward.k8s.io").await;
    through_a_port(place, Spdy::over(client.tunnel())).await;
}

/// Sends the pattern, in few and long messages.
async fn upload_messages(place: &Place, client: &mut WebSocket) {
    let long = 4 << 20;
    let mut full = false;
    for at in (0..MUCH).step_by(long) {
        let message = [vec![0], pattern(at, long)].concat();
        let sending = client.0.send(Message::binary(message));
        let filling = async {
            if !full {
                until("the server is full", || place.server.load().queued >= FULL).await;
                place.fake.gate.open();
            }
        };
        let (sent, ()) = within(async { tokio::join!(sending, filling) }).await;
        sent.unwrap();
        full = true;
        is_bounded(place);
    }
}

async fn download_messages(place: &Place, client: &mut WebSocket, channel: u8) {
    until("the server is full", || place.server.load().queued >= FULL).await;
    assert!(place.fake.poured.load(SeqCst) < MUCH, "it is held up");
    let mut at = 0;
    while at < MUCH {
        let message = within(client.0.next()).await.unwrap().unwrap().into_data();
        assert_eq!(message[0], channel);
        assert!(is_right(&message[1..], at), "after {at}");
        at += message.len() - 1;
        is_bounded(place);
    }
}

#[tokio::test]
async fn over_websocket_much_is_fed_to_a_command_that_stalls() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["check"], "io")).unwrap();
    let mut client = WebSocket::open(&url, "v5.channel.k8s.io").await;
    upload_messages(&place, &mut client).await;
    client.send(255, &[0]).await;
    assert_eq!(String::from_utf8_lossy(&client.finish().await.0[1]), good());
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_much_is_said_to_a_client_that_stalls() {
    let place = Place::new().await;
    let url = place.server.url(exec(&["pour"], "o")).unwrap();
    let mut client = WebSocket::open(&url, "v4.channel.k8s.io").await;
    assert_eq!(client.hear().await, (1, Vec::new()));
    download_messages(&place, &mut client, 1).await;
    assert!(client.finish().await.0[3].starts_with(b"{"));
    drop(client);
    place.is_empty().await;
    place.stop().await;
}

#[tokio::test]
async fn over_websocket_much_comes_from_a_port() {
    let place = Place::new().await;
    let url = place.server.url(forward(&[82])).unwrap();
    let mut client = WebSocket::open(&url, "v4.channel.k8s.io").await;
    let greetings = [client.hear().await.0, client.hear().await.0];
    assert_eq!(greetings, [0, 1]);
    download_messages(&place, &mut client, 0).await;
    drop(client);
    place.is_empty().await;
    place.stop().await;
}
