//! What a client and the server agree to speak, from the headers of a request alone. Every refusal is
//! as CRI's reference server has it, since clients fall back by its status.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONNECTION, HeaderName, HeaderValue, UPGRADE},
};
use sha1::{Digest as _, Sha1};

use crate::Ask;

/// A version of how a command is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// How the end is told: in JSON, always; else in words, if it is a failure.
    pub(crate) json: bool,
    /// Whether there is a stream for the size of a terminal. WebSocket has the channel always.
    pub(crate) sizes: bool,
}

/// How channels are put into messages of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coding {
    /// Text in base64 after the channel's digit; else bytes after the channel's number.
    pub(crate) base64: bool,
    /// Whether the client can close a channel.
    pub(crate) closes: bool,
}

/// What is spoken from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Spdy(Dialect),
    WebSocket(Coding, Dialect),
    SpdyForward,
    WebSocketForward(Coding),
    /// SPDY in the messages of a WebSocket.
    TunnelForward,
}

/// It, and what the client is answered with.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) protocol: Protocol,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why there is nothing to speak.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) why: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

const V4: Dialect = Dialect { json: true, sizes: true };
const V3: Dialect = Dialect { json: false, sizes: true };
const OLD: Dialect = Dialect { json: false, sizes: false };

const RAW: Coding = Coding { base64: false, closes: false };
const BASE64: Coding = Coding { base64: true, closes: false };
const CLOSING: Coding = Coding { base64: false, closes: true };

const SPDY_COMMAND: [(&str, Protocol); 4] = [
    ("v4.channel.k8s.io", Protocol::Spdy(V4)),
    ("v3.channel.k8s.io", Protocol::Spdy(V3)),
    ("v2.channel.k8s.io", Protocol::Spdy(OLD)),
    ("channel.k8s.io", Protocol::Spdy(OLD)),
];

const SPDY_FORWARD: [(&str, Protocol); 1] = [("portforward.k8s.io", Protocol::SpdyForward)];

/// The empty name is for clients that ask for none.
const WEBSOCKET_COMMAND: [(&str, Protocol); 6] = [
    ("v5.channel.k8s.io", Protocol::WebSocket(CLOSING, V4)),
    ("v4.channel.k8s.io", Protocol::WebSocket(RAW, V4)),
    ("v4.base64.channel.k8s.io", Protocol::WebSocket(BASE64, V4)),
    ("channel.k8s.io", Protocol::WebSocket(RAW, V3)),
    ("base64.channel.k8s.io", Protocol::WebSocket(BASE64, V3)),
    ("", Protocol::WebSocket(RAW, V3)),
];

const WEBSOCKET_FORWARD: [(&str, Protocol); 4] = [
    ("SPDY/3.1+portforward.k8s.io", Protocol::TunnelForward),
    ("v4.channel.k8s.io", Protocol::WebSocketForward(RAW)),
    ("v4.base64.channel.k8s.io", Protocol::WebSocketForward(BASE64)),
    ("", Protocol::WebSocketForward(RAW)),
];

const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// By RFC 6455, to show that the key was read by a WebSocket server.
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) fn agree(ask: &Ask, method: &Method, headers: &HeaderMap) -> Result<Agreed, Refused> {
    let forward = matches!(ask, Ask::PortForward(_));
    match (says(headers, &UPGRADE, "websocket") && upgrades(headers), forward) {
        (true, false) => websocket(method, headers, &WEBSOCKET_COMMAND),
        (true, true) => {
            let agreed = websocket(method, headers, &WEBSOCKET_FORWARD)?;
            if fits(ask, agreed.protocol) { Ok(agreed) } else { Err(too_many_ports()) }
        }
        (false, false) => spdy(headers, &SPDY_COMMAND),
        (false, true) => spdy(headers, &SPDY_FORWARD),
    }
}

fn spdy(headers: &HeaderMap, known: &[(&'static str, Protocol)]) -> Result<Agreed, Refused> {
    let asked = listed(headers, &VERSION);
    if asked.is_empty() {
        return Err(bad(format!("unable to upgrade: {VERSION} names no protocol")));
    }
    let Some(&(name, protocol)) = first(&asked, known) else {
        return Err(nothing_common(&asked, known));
    };
    if !upgrades(headers) || !says(headers, &UPGRADE, "spdy/3.1") {
        return Err(bad("unable to upgrade: the request has no Upgrade: SPDY/3.1".to_owned()));
    }
    let headers = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("SPDY/3.1")),
        (VERSION, HeaderValue::from_static(name)),
    ];
    Ok(Agreed { protocol, headers })
}

fn nothing_common(asked: &[String], known: &[(&'static str, Protocol)]) -> Refused {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports {}, server accepts {}",
        asked.join(", "),
        names.join(", ")
    );
    let headers = known.iter().map(|(name, _)| (ACCEPTED, HeaderValue::from_static(name)));
    Refused { status: StatusCode::FORBIDDEN, why, headers: headers.collect() }
}

fn websocket(
    method: &Method,
    headers: &HeaderMap,
    known: &[(&'static str, Protocol)],
) -> Result<Agreed, Refused> {
    if method != Method::GET {
        let why = "a WebSocket is opened with GET".to_owned();
        return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, why, headers: Vec::new() });
    }
    if headers.get(&WS_VERSION).is_none_or(|version| version != "13") {
        let headers = vec![(WS_VERSION, HeaderValue::from_static("13"))];
        return Err(Refused {
            headers,
            ..bad("only version 13 of WebSocket is spoken".to_owned())
        });
    }
    let key = headers.get(&WS_KEY).ok_or_else(|| bad(format!("there is no {WS_KEY}")))?;
    let mut asked = listed(headers, &WS_PROTOCOL);
    if asked.is_empty() {
        asked.push(String::new());
    }
    let Some(&(name, protocol)) = first(&asked, known) else {
        return Err(nothing_common(&asked, known));
    };
    let proof = HeaderValue::from_str(&proof(key.as_bytes()));
    let proof = proof.map_err(|_| bad(format!("the {WS_KEY} cannot be answered")))?;
    let mut headers = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (WS_ACCEPT, proof),
    ];
    if !name.is_empty() {
        headers.push((WS_PROTOCOL, HeaderValue::from_static(name)));
    }
    Ok(Agreed { protocol, headers })
}

fn proof(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT).finalize())
}

/// Whether each port can have its two channels: a number is a byte, and as a digit of base64 it is a
/// character that can be seen.
fn fits(ask: &Ask, protocol: Protocol) -> bool {
    let (Ask::PortForward(ask), Protocol::WebSocketForward(coding)) = (ask, protocol) else {
        return true;
    };
    let channels = if coding.base64 { usize::from(b'~' - b'0') } else { usize::from(u8::MAX) };
    ask.ports.len() * 2 <= channels
}

fn too_many_ports() -> Refused {
    bad("there are more ports than channels; use SPDY, or ask for fewer".to_owned())
}

fn bad(why: String) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, why, headers: Vec::new() }
}

/// The first that the client wants and the server knows.
fn first<'a>(
    asked: &[String],
    known: &'a [(&'static str, Protocol)],
) -> Option<&'a (&'static str, Protocol)> {
    asked.iter().find_map(|name| known.iter().find(|(known, _)| known == name))
}

/// What a header lists, with commas or by being there more than once.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn upgrades(headers: &HeaderMap) -> bool {
    says(headers, &CONNECTION, "upgrade")
}

fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    listed(headers, name).iter().any(|said| said.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
