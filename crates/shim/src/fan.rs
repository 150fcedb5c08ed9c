//! Who hears a container's output besides its log: readers who come while it runs, and who may be
//! slow. Where the output comes from is not known here.

use std::{
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard},
    task::Poll,
};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::Interest, net::unix::pipe::Sender, sync::Notify};

/// Our end of a reader's pipe.
pub struct Sink {
    to: Sender,
    /// How much of the present piece it has.
    given: usize,
    gone: bool,
}

impl Sink {
    /// A pipe: the reader's end, and ours.
    pub fn pipe() -> io::Result<(OwnedFd, Self)> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((from, Self { to: Sender::from_owned_fd(to)?, given: 0, gone: false }))
    }

    /// Gives it all of the piece that it has not, however long it takes, unless it goes. May be
    /// dropped and called again.
    async fn give(&mut self, piece: &[u8]) {
        while let Some(rest) = piece.get(self.given..).filter(|rest| !rest.is_empty() && !self.gone)
        {
            let written = match self.to.writable().await {
                Ok(()) => self.to.try_write(rest),
                Err(error) => Err(error),
            };
            match written {
                Ok(n) => self.given += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
        }
    }
}

/// The readers of one stream, in the hands of whoever reads that stream.
#[derive(Default)]
pub struct Readers(Vec<Sink>);

impl Readers {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in those that have come. They have as much of the present piece as is told: they get
    /// none of it.
    pub fn admit(&mut self, fan: &Fan, told: usize) {
        let mut new = std::mem::take(&mut fan.state().new);
        new.iter_mut().for_each(|sink| sink.given = told);
        self.0.append(&mut new);
    }

    /// Gives all of them the piece, side by side. May be dropped and called again with the same one.
    pub async fn give(&mut self, piece: &[u8]) {
        let mut giving: Vec<_> = self.0.iter_mut().map(|sink| Box::pin(sink.give(piece))).collect();
        let all = poll_fn(|cx| {
            giving.retain_mut(|one| one.as_mut().poll(cx).is_pending());
            if giving.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        all.await;
        drop(giving);
        self.0.retain(|sink| !sink.gone);
        self.0.iter_mut().for_each(|sink| sink.given = 0);
    }

    /// Returns when one of them has closed its end, and is no longer among them.
    pub async fn one_has_gone(&mut self) {
        let mut ends: Vec<_> =
            self.0.iter().map(|sink| Box::pin(sink.to.ready(Interest::ERROR))).collect();
        let first = poll_fn(|cx| {
            let ended = ends.iter_mut().position(|end| end.as_mut().poll(cx).is_ready());
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let first = first.await;
        drop(ends);
        self.0.swap_remove(first);
    }

    /// Gives them the last piece, each in its own time, and then the end.
    pub fn part(self, last: &[u8]) {
        for mut sink in self.0 {
            if sink.given < last.len() {
                let rest = last[sink.given..].to_vec();
                sink.given = 0;
                tokio::spawn(async move { sink.give(&rest).await });
            }
        }
    }
}

/// Where readers of one stream come in.
#[derive(Default)]
pub struct Fan {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Default)]
struct State {
    new: Vec<Sink>,
    closed: bool,
}

impl Fan {
    /// It will hear what is read from now on; or the end at once, if that was before.
    pub fn join(&self, sink: Sink) {
        let mut state = self.state();
        if !state.closed {
            state.new.push(sink);
            self.came.notify_one();
        }
    }

    /// Returns when there is somebody to admit.
    pub async fn comers(&self) {
        self.came.notified().await;
    }

    /// There is nothing more to be heard.
    pub fn close(&self) {
        *self.state() = State { new: Vec::new(), closed: true };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the readers")
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const BLINK: Duration = Duration::from_millis(50);
    const SOON: Duration = Duration::from_secs(10);

    fn join(fan: &Fan) -> File {
        let (from, sink) = Sink::pipe().unwrap();
        fan.join(sink);
        File::from(from)
    }

    #[tokio::test]
    async fn a_slow_reader_loses_nothing_when_giving_is_interrupted_and_at_the_end() {
        let (fan, mut readers) = (Fan::default(), Readers::default());
        let (slow, mut quick) = (join(&fan), join(&fan));
        readers.admit(&fan, 0);
        let (first, piece) = (vec![1; 1000], vec![2; 100_000]);
        readers.give(&first).await;
        assert!(timeout(BLINK, readers.give(&piece)).await.is_err(), "nobody reads");
        let late = join(&fan);
        readers.admit(&fan, piece.len());
        fan.close();
        let last = [piece.clone(), vec![3; 10]].concat();
        readers.part(&last);
        let whole = |mut file: File| {
            let read = move || {
                let mut all = Vec::new();
                file.read_to_end(&mut all).unwrap();
                all
            };
            tokio::task::spawn_blocking(read)
        };
        let mut begin = [0; 1000];
        quick.read_exact(&mut begin).unwrap();
        assert!(
            timeout(SOON, whole(slow)).await.unwrap().unwrap() == [first, last.clone()].concat()
        );
        assert!(timeout(SOON, whole(quick)).await.unwrap().unwrap() == last);
        assert_eq!(timeout(SOON, whole(late)).await.unwrap().unwrap(), [3; 10]);
        assert!(timeout(SOON, whole(join(&fan))).await.unwrap().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_closes_its_end_is_dropped_at_once_even_while_it_is_waited_for() {
        let (fan, mut readers) = (Fan::default(), Readers::default());
        let (one, _other) = (join(&fan), join(&fan));
        fan.comers().await;
        readers.admit(&fan, 0);
        assert!(timeout(BLINK, readers.one_has_gone()).await.is_err());
        drop(one);
        timeout(SOON, readers.one_has_gone()).await.unwrap();
        assert_eq!(readers.0.len(), 1);
        let third = join(&fan);
        readers.admit(&fan, 0);
        let piece = vec![0; 100_000];
        assert!(timeout(BLINK, readers.give(&piece)).await.is_err());
        drop(third);
        assert!(timeout(BLINK, readers.give(&piece)).await.is_err());
        assert_eq!(readers.0.iter().filter(|sink| sink.gone).count(), 1);
    }
}
