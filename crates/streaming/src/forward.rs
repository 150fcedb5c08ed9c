//! Connections to the ports of a pod: over SPDY as many as the client opens, over a WebSocket one for
//! each port that was asked for.

use std::{io, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    select,
    time::sleep_until,
};
use tracing::debug;

use crate::{
    Refusal, Stream, Target,
    command::{PIECE, pass},
    lane::{Listener, Speaker},
    pairs::{Half, Kind, Matched, Pairs},
    session::Session,
    wire::Opened,
};

/// Streams that a client may have open: two for each connection.
pub(crate) const STREAMS: usize = 1024;

/// Connections, of a client that opens streams and resets them faster than connections end.
const MOST: usize = STREAMS / 2;

type Ends = (Listener, Speaker);

/// What is being done for a client.
enum Job {
    Forward {
        port: u16,
        data: Ends,
        error: Speaker,
    },
    /// The other half did not come.
    GiveUp(Half, Ends),
}

/// Serves what the client opens, until it opens no more and all have ended.
pub(crate) async fn over_spdy(
    target: &dyn Target,
    pod: &str,
    session: &Session,
    creation: Duration,
) {
    let mut pairs: Pairs<Ends> = Pairs::new(creation);
    let mut jobs = FuturesUnordered::new();
    let mut leaving = false;
    while !leaving || !jobs.is_empty() {
        select! {
            opened = session.opened(), if !leaving => match opened {
                None => leaving = true,
                Some(opened) if pairs.len().max(jobs.len()) >= MOST => session.refuse(opened.lane),
                Some(opened) => {
                    jobs.extend(pair(&mut pairs, session, &opened).map(|job| work(target, pod, job)));
                }
            },
            Some(()) = jobs.next() => {}
            () = first_end(&pairs) => {
                let expired = pairs.expired().into_iter();
                jobs.extend(expired.map(|(half, ends)| work(target, pod, Job::GiveUp(half, ends))));
            }
        }
    }
}

async fn work(target: &dyn Target, pod: &str, job: Job) {
    match job {
        Job::Forward { port, data, error } => forward(target, pod, port, data, error).await,
        Job::GiveUp(half, (_, mut speaker)) if half.kind == Kind::Error => {
            tell(&mut speaker, "timed out waiting for the stream for data").await;
        }
        Job::GiveUp(..) => {}
    }
}

fn pair(pairs: &mut Pairs<Ends>, session: &Session, opened: &Opened) -> Option<Job> {
    let Some(half) = Half::read(opened.lane, &opened.headers) else {
        session.refuse(opened.lane);
        return None;
    };
    match pairs.add(half, session.accept(opened.lane)) {
        Matched::Pair { error: (_, error), data, port } => Some(Job::Forward { port, data, error }),
        Matched::Waits | Matched::Twice(_) => None,
    }
}

async fn first_end(pairs: &Pairs<Ends>) {
    match pairs.first_end() {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Serves each port, on its lanes for data and for errors.
pub(crate) async fn over_channels(
    target: &dyn Target,
    pod: &str,
    ports: Vec<(u16, Ends, Speaker)>,
) {
    let forwards = ports.into_iter();
    let forwards = forwards.map(|(port, data, error)| forward(target, pod, port, data, error));
    forwards.collect::<FuturesUnordered<_>>().collect::<()>().await;
}

/// One connection, from its beginning to its end.
///
/// On the stream for errors there is a word only if it was not made: kubectl ends all of its
/// connections for one. That it broke later, as they do, is told by a reset.
async fn forward(target: &dyn Target, pod: &str, port: u16, data: Ends, mut error: Speaker) {
    match target.forward(pod, port).await {
        Ok(stream) => match join(stream, data).await {
            Ok(()) => {
                let _ = error.shutdown().await;
            }
            Err(broken) => debug!("a connection to port {port} of {pod} broke: {broken}"),
        },
        Err(refusal) => tell(&mut error, &refused(pod, port, &refusal)).await,
    }
}

fn refused(pod: &str, port: u16, refusal: &Refusal) -> String {
    format!("error forwarding port {port} to pod {pod}: {refusal}")
}

async fn tell(speaker: &mut Speaker, words: &str) {
    if speaker.write_all(words.as_bytes()).await.is_ok() {
        let _ = speaker.shutdown().await;
    }
}

/// Passes bytes both ways until both sides have said their last, or one of them broke off.
async fn join(stream: Box<dyn Stream>, (listener, mut speaker): Ends) -> io::Result<()> {
    let (from_pod, mut to_pod) = split(stream);
    let out = async {
        pass(from_pod, &mut speaker).await?;
        speaker.shutdown().await
    };
    tokio::try_join!(out, listen(listener, &mut to_pod)).map(drop)
}

/// Passes on what the client says. If the pod takes no more, what it says may still be read, so that is
/// no end; that the client broke off is one.
async fn listen(mut listener: Listener, to_pod: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut takes = true;
    loop {
        let read = listener.read(&mut piece).await?;
        if read == 0 {
            let _ = to_pod.shutdown().await;
            return Ok(());
        }
        takes = takes && to_pod.write_all(&piece[..read]).await.is_ok();
        takes = takes && to_pod.flush().await.is_ok();
    }
}
