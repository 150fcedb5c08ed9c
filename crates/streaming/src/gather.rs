//! The streams of SPDY that a command needs, until the client has opened all of them.

use spdy::Headers;

use crate::{
    Streams,
    agree::Dialect,
    command::Lanes,
    lane::{Listener, Speaker},
    session::Session,
    wire::Opened,
};

/// What a stream is for.
pub(crate) const TYPE: &str = "streamtype";

/// More than any client has use for.
pub(crate) const STREAMS: usize = 16;

/// The ends of those that were opened.
#[derive(Default)]
struct Gathered {
    stdin: Option<(Listener, Speaker)>,
    stdout: Option<(Listener, Speaker)>,
    stderr: Option<(Listener, Speaker)>,
    error: Option<(Listener, Speaker)>,
    resize: Option<(Listener, Speaker)>,
}

/// Waits for them; there are none if the client goes without having opened all.
pub(crate) async fn gather(session: &Session, wanted: Streams, dialect: Dialect) -> Option<Lanes> {
    let mut gathered = Gathered::default();
    while !gathered.is_all(wanted, dialect) {
        let Opened { lane, headers } = session.opened().await?;
        match gathered.place(&headers) {
            Some(place @ None) => *place = Some(session.accept(lane)),
            // It is of no known type, or one of that type is there.
            Some(Some(_)) | None => session.refuse(lane),
        }
    }
    session.shut();
    gathered.lanes(wanted)
}

impl Gathered {
    fn place(&mut self, headers: &Headers) -> Option<&mut Option<(Listener, Speaker)>> {
        match headers.get(TYPE)? {
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "error" => Some(&mut self.error),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    fn is_all(&self, wanted: Streams, dialect: Dialect) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr)
            && (self.resize.is_some() || !(wanted.tty && dialect.sizes))
    }

    /// What is not wanted is dropped, and so reset.
    fn lanes(self, wanted: Streams) -> Option<Lanes> {
        let (_, error) = self.error?;
        let (stdin, stdin_speaker) = self.stdin.filter(|_| wanted.stdin).unzip();
        let (sizes, sizes_speaker) = self.resize.filter(|_| wanted.tty).unzip();
        let kept = stdin_speaker.into_iter().chain(sizes_speaker).collect();
        let stdout = self.stdout.filter(|_| wanted.stdout).map(|(_, speaker)| speaker);
        let stderr = self.stderr.filter(|_| wanted.stderr).map(|(_, speaker)| speaker);
        Some(Lanes { stdin, stdout, stderr, error, sizes, kept })
    }
}
