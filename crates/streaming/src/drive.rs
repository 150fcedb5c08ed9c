//! The one place that reads and writes the socket of a client that has upgraded, and where it is
//! decided that it is over.

use std::{
    future::{Future, poll_fn},
    io,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::{Shutdown, shutdown};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tracing::debug;

use crate::{session::Session, wire::Fault};

/// How much is read at a time.
const PIECE: usize = 16 << 10;

/// How long a client that broke the protocol, or did nothing for too long, may take to be told so, and
/// any client to close its side.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a session ends before its work does.
#[derive(Debug, thiserror::Error)]
enum Parting {
    /// A client that closes its half is gone for us: none of them goes on to listen.
    #[error("the client has gone")]
    Gone,
    #[error("the connection broke: {0}")]
    Broke(#[from] io::Error),
    #[error("the client said goodbye")]
    Goodbye,
    #[error("the client breaks the protocol: {0}")]
    Fault(#[from] Fault),
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
}

/// Moves what goes between the client and the session's lanes, until the work that uses them is done
/// and all that it said is sent; or until the client is gone, when the work is dropped.
pub(crate) async fn drive(
    session: &Session,
    socket: &TcpStream,
    idle: Duration,
    work: impl Future<Output = ()>,
) {
    let parting = tokio::select! {
        biased;
        () = work => None,
        parting = until_parting(session, socket, idle) => Some(parting),
    };
    session.farewell();
    match parting {
        None => tokio::select! {
            biased;
            written = write_all(session, socket) => linger(written, socket).await,
            () = discard(socket) => {}
            () = stillness(session, idle) => {}
        },
        Some(Parting::Gone | Parting::Broke(_)) => {}
        Some(parting) => {
            debug!("a stream ends: {parting}");
            let written = timeout(LAST_WORDS, write_all(session, socket)).await;
            linger(written.unwrap_or_else(|late| Err(late.into())), socket).await;
        }
    }
}

async fn until_parting(session: &Session, socket: &TcpStream, idle: Duration) -> Parting {
    let mut piece = vec![0; PIECE];
    tokio::select! {
        parting = poll_fn(|cx| poll_move(session, socket, &mut piece, cx)) => parting,
        () = stillness(session, idle) => Parting::Idle(idle),
        () = hang_up(socket) => Parting::Gone,
    }
}

fn poll_move(
    session: &Session,
    socket: &TcpStream,
    piece: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<Parting> {
    session.state().begin_move(cx);
    loop {
        // What came with the request, or waits for what was consumed, is looked at first.
        let is_over = session.state().deliver();
        let moved = poll_write(session, socket, cx)
            .and_then(|written| Ok(written | poll_read(session, socket, piece, cx)?));
        session.state().end_move();
        match (is_over, moved) {
            (Err(fault), _) => return Poll::Ready(fault.into()),
            (Ok(true), _) => return Poll::Ready(Parting::Goodbye),
            (_, Err(parting)) => return Poll::Ready(parting),
            (_, Ok(true)) => {}
            (_, Ok(false)) => return Poll::Pending,
        }
    }
}

/// Writes what there is to write, and says whether something was.
fn poll_write(
    session: &Session,
    socket: &TcpStream,
    cx: &mut Context<'_>,
) -> Result<bool, Parting> {
    let mut moved = false;
    let mut state = session.state();
    while !state.wire.output().is_empty() {
        let Poll::Ready(ready) = socket.poll_write_ready(cx) else { break };
        ready?;
        match socket.try_write(state.wire.output()) {
            Ok(written) => {
                state.wire.written(written);
                state.note_moved();
                moved = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    if moved {
        state.wake_speakers();
    }
    Ok(moved)
}

/// Reads once, if the session takes it, and says whether something came.
fn poll_read(
    session: &Session,
    socket: &TcpStream,
    piece: &mut [u8],
    cx: &mut Context<'_>,
) -> Result<bool, Parting> {
    let mut state = session.state();
    while state.wire.wants_input() {
        let Poll::Ready(ready) = socket.poll_read_ready(cx) else { break };
        ready?;
        match socket.try_read(piece) {
            Ok(0) => return Err(Parting::Gone),
            Ok(read) => {
                state.wire.receive(&piece[..read]);
                state.note_moved();
                return Ok(true);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

async fn write_all(session: &Session, socket: &TcpStream) -> io::Result<()> {
    poll_fn(|cx| {
        session.state().begin_move(cx);
        let written = poll_write(session, socket, cx);
        let mut state = session.state();
        state.end_move();
        match written {
            Err(Parting::Broke(error)) => Poll::Ready(Err(error)),
            _ if state.wire.output().is_empty() => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Ends when nothing has come or gone for so long.
async fn stillness(session: &Session, limit: Duration) {
    loop {
        let end = session.moved() + limit;
        if end <= tokio::time::Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

/// Ends when the client has closed its half of the connection, even if what it sent before is not
/// read because nobody takes it.
async fn hang_up(socket: &TcpStream) {
    // To ask for what is urgent is to be told of that, which never comes, and of the end.
    while let Ok(ready) = socket.ready(Interest::PRIORITY).await {
        if ready.is_read_closed() {
            return;
        }
    }
}

/// Closes our half and waits for the client's. What it still sends is read, since to close a socket
/// with something unread takes back what was sent.
async fn linger(written: io::Result<()>, socket: &TcpStream) {
    if written.is_ok() && shutdown(socket, Shutdown::Write).is_ok() {
        // Whoever does not close by then has had what there is.
        let _ = timeout(LAST_WORDS, discard(socket)).await;
    }
}

/// Reads to the end.
async fn discard(socket: &TcpStream) {
    let mut piece = vec![0; PIECE];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut piece) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}
