//! Attaching to a container: what of its streams a client gets, and when.

use std::{io, sync::Arc};

use shim_api::Streams;

use super::{Input, Task};
use crate::{error::Error, fan::Sink, handover::Offer, stdio::Wanted};

/// What a client that attaches shall have.
pub struct Joining {
    streams: Streams,
    stdin: bool,
    /// For stdout and stderr.
    sinks: [Option<Sink>; 2],
}

impl Joining {
    /// Makes the pipes, in which nothing is yet. With a terminal there is no stderr.
    pub fn new(wanted: Wanted, terminal: bool) -> Result<Self, Error> {
        let pipe = |wanted: bool| {
            let pipe = wanted.then(Sink::pipe).transpose();
            pipe.map(Option::unzip).map_err(Error::kernel("making a pipe"))
        };
        let (stdout, out) = pipe(wanted.stdout)?;
        let (stderr, err) = pipe(wanted.stderr && !terminal)?;
        let streams = Streams { stdout, stderr, ..Streams::default() };
        Ok(Self { streams, stdin: wanted.stdin, sinks: [out, err] })
    }
}

impl Task {
    /// Lets a client join in, once it takes what it is offered.
    pub async fn join(self: Arc<Self>, joining: Joining, offer: Offer) {
        let Some(line) = offer.taken().await else { return };
        let Joining { mut streams, stdin, sinks } = joining;
        let input = match stdin.then(|| self.lend_stdin()).transpose() {
            Ok(input) => input.flatten(),
            Err(error) => return eprintln!("{}: lending stdin: {error}", self.id),
        };
        for (fan, sink) in self.fans.iter().zip(sinks) {
            if let Some(sink) = sink {
                fan.join(sink);
            }
        }
        let once = input.as_ref().is_some_and(|input| input.once);
        streams.stdin = input.map(|input| input.to);
        if line.give(&streams).await.is_err() && once && self.state().alive().is_some() {
            self.keep_stdin(streams.stdin.map(|to| Input { to, once }));
        }
    }

    /// What a client writes to: the only one there is, if that ends with the client.
    fn lend_stdin(&self) -> io::Result<Option<Input>> {
        let mut held = self.held();
        match &held.stdin {
            Some(Input { once: true, .. }) => Ok(held.stdin.take()),
            Some(Input { to, .. }) => Ok(Some(Input { to: to.try_clone()?, once: false })),
            None => Ok(None),
        }
    }
}
