//! What is agreed on, and what is refused.

use super::*;
use crate::{Attach, PortForward, Streams};

fn command() -> Ask {
    let streams = Streams { stdout: true, ..Streams::default() };
    Ask::Attach(Attach { container: "c".to_owned(), streams })
}

fn forward(ports: usize) -> Ask {
    Ask::PortForward(PortForward { pod: "p".to_owned(), ports: vec![80; ports] })
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

const SPDY: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];

const WEBSOCKET: [(&str, &str); 4] = [
    ("connection", "keep-alive, upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn spdy(ask: &Ask, versions: &'static str) -> Result<Agreed, Refused> {
    let mut headers = headers(&SPDY);
    headers.append("x-stream-protocol-version", HeaderValue::from_static(versions));
    agree(ask, &Method::POST, &headers)
}

fn websocket(ask: &Ask, protocols: &'static str) -> Result<Agreed, Refused> {
    let mut headers = headers(&WEBSOCKET);
    headers.append("sec-websocket-protocol", HeaderValue::from_static(protocols));
    agree(ask, &Method::GET, &headers)
}

fn status(refused: Result<Agreed, Refused>) -> StatusCode {
    refused.unwrap_err().status
}

#[test]
fn spdy_takes_the_first_version_of_the_client_that_it_knows() {
    let agreed =
        spdy(&command(), "v5.channel.k8s.io,v4.channel.k8s.io, v3.channel.k8s.io").unwrap();
    assert_eq!(agreed.protocol, Protocol::Spdy(V4));
    assert_eq!(agreed.headers[2].1, "v4.channel.k8s.io");
    assert_eq!(spdy(&command(), "channel.k8s.io").unwrap().protocol, Protocol::Spdy(OLD));
    let forwarded = spdy(&forward(0), "portforward.k8s.io").unwrap();
    assert_eq!(forwarded.protocol, Protocol::SpdyForward);
}

#[test]
fn spdy_without_a_version_is_a_bad_request_and_with_an_unknown_one_forbidden() {
    let none = agree(&command(), &Method::GET, &headers(&SPDY));
    assert_eq!(status(none), StatusCode::BAD_REQUEST);
    assert_eq!(status(spdy(&command(), " , ")), StatusCode::BAD_REQUEST);
    let refused = spdy(&command(), "v9.channel.k8s.io").unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let accepted: Vec<_> = refused.headers.iter().map(|(_, value)| value.clone()).collect();
    let known = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
    assert_eq!(accepted, known);
    assert_eq!(status(spdy(&forward(0), "v4.channel.k8s.io")), StatusCode::FORBIDDEN);
}

#[test]
fn a_request_without_an_upgrade_is_a_bad_request() {
    let plain = headers(&[("x-stream-protocol-version", "v4.channel.k8s.io")]);
    assert_eq!(status(agree(&command(), &Method::GET, &plain)), StatusCode::BAD_REQUEST);
    assert_eq!(status(agree(&command(), &Method::GET, &headers(&[]))), StatusCode::BAD_REQUEST);
}

#[test]
fn a_websocket_is_answered_as_its_specification_shows() {
    let agreed = websocket(&command(), "v5.channel.k8s.io, v4.channel.k8s.io").unwrap();
    assert_eq!(agreed.protocol, Protocol::WebSocket(CLOSING, V4));
    assert_eq!(agreed.headers[2].1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(agreed.headers[3].1, "v5.channel.k8s.io");
    let agreed = agree(&command(), &Method::GET, &headers(&WEBSOCKET)).unwrap();
    assert_eq!((agreed.protocol, agreed.headers.len()), (Protocol::WebSocket(RAW, V3), 3));
    let agreed = websocket(&forward(1), "SPDY/3.1+portforward.k8s.io").unwrap();
    assert_eq!(agreed.protocol, Protocol::TunnelForward);
}

#[test]
fn a_websocket_that_is_not_one_or_speaks_something_else_is_refused() {
    assert_eq!(status(websocket(&command(), "chat")), StatusCode::FORBIDDEN);
    assert_eq!(status(websocket(&forward(1), "v5.channel.k8s.io")), StatusCode::FORBIDDEN);
    let post = agree(&command(), &Method::POST, &headers(&WEBSOCKET));
    assert_eq!(status(post), StatusCode::METHOD_NOT_ALLOWED);
    for without in 2..4 {
        let kept = WEBSOCKET.iter().enumerate().filter(|(at, _)| *at != without);
        let kept: Vec<_> = kept.map(|(_, pair)| *pair).collect();
        let refused = agree(&command(), &Method::GET, &headers(&kept));
        assert_eq!(status(refused), StatusCode::BAD_REQUEST);
    }
}

#[test]
fn no_more_ports_are_taken_than_there_are_channels() {
    assert!(websocket(&forward(127), "v4.channel.k8s.io").is_ok());
    assert_eq!(status(websocket(&forward(128), "v4.channel.k8s.io")), StatusCode::BAD_REQUEST);
    assert!(websocket(&forward(39), "v4.base64.channel.k8s.io").is_ok());
    let refused = websocket(&forward(40), "v4.base64.channel.k8s.io");
    assert_eq!(status(refused), StatusCode::BAD_REQUEST);
    assert!(websocket(&forward(1000), "SPDY/3.1+portforward.k8s.io").is_ok());
}
