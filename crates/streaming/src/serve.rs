//! One client that has shown a token, in the protocol that was agreed on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::ServerConnection;
use tokio::{net::TcpStream, time::timeout};
use tracing::debug;

use crate::{
    Ask, Streams, Target,
    agree::{Coding, Dialect, Protocol},
    command::{self, Lanes},
    drive::drive,
    forward, gather,
    load::Share,
    session::Session,
    spdy_wire::Spdy,
    tls_wire::Secret,
    websocket::{Access, Channels, Tunnel},
    wire::{Lane, Wire},
};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) idle: Duration,
    pub(crate) creation: Duration,
}

mod channel {
    use crate::wire::Lane;

    pub(super) const STDIN: Lane = 0;
    pub(super) const STDOUT: Lane = 1;
    pub(super) const STDERR: Lane = 2;
    pub(super) const ERROR: Lane = 3;
    pub(super) const RESIZE: Lane = 4;
}

/// A client that has upgraded.
pub(crate) struct Client {
    pub(crate) ask: Ask,
    pub(crate) protocol: Protocol,
    pub(crate) socket: TcpStream,
    /// What is between us and the socket, if it came over TLS.
    pub(crate) tls: Option<Box<ServerConnection>>,
    /// What it sent early, with its request.
    pub(crate) early: Bytes,
}

/// Serves it to the end.
pub(crate) async fn serve(
    target: Arc<dyn Target>,
    client: Client,
    patience: Patience,
    load: Share,
) {
    let Client { ask, protocol, socket, tls, early } = client;
    let wire = wire(&ask, protocol);
    let session = match tls {
        Some(tls) => Session::new(Box::new(Secret::new(tls, wire, &early)), &[], load),
        None => Session::new(wire, &early, load),
    };
    let work = async {
        match (&ask, protocol) {
            (Ask::PortForward(ask), Protocol::WebSocketForward(_)) => {
                let ports = ports(&session, &ask.ports);
                forward::over_channels(&*target, &ask.pod, ports).await;
            }
            (Ask::PortForward(ask), _) => {
                forward::over_spdy(&*target, &ask.pod, &session, patience.creation).await;
            }
            (Ask::Exec(_) | Ask::Attach(_), Protocol::WebSocket(_, dialect)) => {
                let lanes = channels(&session, streams(&ask));
                command::run(&*target, &ask, dialect, lanes).await;
            }
            (Ask::Exec(_) | Ask::Attach(_), Protocol::Spdy(dialect)) => {
                spdy_command(&*target, &ask, dialect, &session, patience.creation).await;
            }
            (ask, protocol) => debug!("nobody agrees on {protocol:?} for {}", ask.verb()),
        }
    };
    drive(&session, &socket, patience.idle, work).await;
}

async fn spdy_command(
    target: &dyn Target,
    ask: &Ask,
    dialect: Dialect,
    session: &Session,
    creation: Duration,
) {
    match timeout(creation, gather::gather(session, streams(ask), dialect)).await {
        Ok(Some(lanes)) => command::run(target, ask, dialect, lanes).await,
        Ok(None) => debug!("a client went before it had opened its streams"),
        Err(_) => debug!("a client did not open its streams in {creation:?}"),
    }
}

fn streams(ask: &Ask) -> Streams {
    match ask {
        Ask::Exec(exec) => exec.streams,
        Ask::Attach(attach) => attach.streams,
        Ask::PortForward(_) => Streams::default(),
    }
}

fn wire(ask: &Ask, protocol: Protocol) -> Box<dyn Wire> {
    match (protocol, ask) {
        (Protocol::Spdy(_), _) => Box::new(Spdy::new(gather::STREAMS)),
        (Protocol::SpdyForward, _) => Box::new(Spdy::new(forward::STREAMS)),
        (Protocol::TunnelForward, _) => Box::new(Tunnel::new(Spdy::new(forward::STREAMS))),
        (Protocol::WebSocketForward(coding), Ask::PortForward(ask)) => {
            Box::new(port_channels(coding, &ask.ports))
        }
        (Protocol::WebSocket(coding, _) | Protocol::WebSocketForward(coding), ask) => {
            Box::new(command_channels(coding, streams(ask)))
        }
    }
}

/// Its first message shows that the command is being attended to; it is on the first channel that the
/// client listens to.
fn command_channels(coding: Coding, streams: Streams) -> Channels {
    let stdin = if streams.stdin { Access::Sends } else { Access::Listens };
    let access = vec![stdin, Access::Listens, Access::Listens, Access::Listens, Access::Sends];
    let first = match streams {
        Streams { stdout: true, .. } => channel::STDOUT,
        Streams { stderr: true, .. } => channel::STDERR,
        _ => channel::ERROR,
    };
    Channels::new(coding, access).greeting(first, &[])
}

/// A channel for data and one for errors for each port. The first message on each is the port.
fn port_channels(coding: Coding, ports: &[u16]) -> Channels {
    let access = ports.iter().flat_map(|_| [Access::Sends, Access::Listens]).collect();
    let lanes = (0..).zip(ports.iter().flat_map(|port| [port; 2]));
    lanes.fold(Channels::new(coding, access), |channels, (lane, port)| {
        channels.greeting(lane, &port.to_le_bytes())
    })
}

fn channels(session: &Session, streams: Streams) -> Lanes {
    let (stdin, stdin_speaker) = session.accept(channel::STDIN);
    let (sizes, sizes_speaker) = session.accept(channel::RESIZE);
    let speaker = |lane: Lane, wanted: bool| wanted.then(|| session.accept(lane).1);
    Lanes {
        stdin: streams.stdin.then_some(stdin),
        stdout: speaker(channel::STDOUT, streams.stdout),
        stderr: speaker(channel::STDERR, streams.stderr),
        error: session.accept(channel::ERROR).1,
        sizes: streams.tty.then_some(sizes),
        kept: vec![stdin_speaker, sizes_speaker],
    }
}

fn ports(
    session: &Session,
    ports: &[u16],
) -> Vec<(u16, (crate::lane::Listener, crate::lane::Speaker), crate::lane::Speaker)> {
    let lanes = (0..).step_by(2);
    let ports = ports.iter().zip(lanes);
    ports.map(|(port, lane)| (*port, session.accept(lane), session.accept(lane + 1).1)).collect()
}
