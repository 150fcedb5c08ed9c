//! The socket at which the daemon takes descriptors: who says a token gets what was held out for
//! it, once. What that is, and what the connection means afterwards, is not known here.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustix::{
    fs::Mode,
    process::umask,
    rand::{GetRandomFlags, getrandom},
};
use shim_api::{
    streams::{Streams, TOKEN},
    supervisor::HandOver,
};
use tokio::{
    io::{AsyncReadExt as _, Interest},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{console, error::Error};

/// The socket's name in the pod's directory.
pub const SOCKET: &str = "streams.sock";

/// How long something is held out; and how long a token may take to be said.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long we wait after a connection could not be accepted: for want of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

type Token = [u8; TOKEN];

/// What is held out now, by its tokens.
pub struct Desk {
    socket: PathBuf,
    offers: Mutex<HashMap<Token, oneshot::Sender<UnixStream>>>,
}

impl Desk {
    /// Opens it in this directory.
    pub fn open(dir: &Path) -> Result<Arc<Self>, Error> {
        let socket = dir.join(SOCKET);
        let listener = listen(&socket).map_err(|e| Error::io("listening at", &socket, e))?;
        let desk = Arc::new(Self { socket, offers: Mutex::default() });
        tokio::spawn(desk.clone().serve(listener));
        Ok(desk)
    }

    /// Begins to hold something out.
    pub fn offer(self: &Arc<Self>) -> Result<Offer, Error> {
        let token = token().map_err(Error::kernel("making a token"))?;
        let (give, taken) = oneshot::channel();
        self.offers().insert(token, give);
        Ok(Offer { desk: self.clone(), token, taken })
    }

    fn offers(&self) -> MutexGuard<'_, HashMap<Token, oneshot::Sender<UnixStream>>> {
        self.offers.lock().expect("nothing panics while it holds the offers")
    }

    async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((taker, _)) => drop(tokio::spawn(self.clone().meet(taker))),
                Err(error) => {
                    eprintln!("{}: {error}", self.socket.display());
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Who does not say a token that we know is left standing.
    async fn meet(self: Arc<Self>, mut taker: UnixStream) {
        let mut token = [0; TOKEN];
        if let Ok(Ok(_)) = timeout(PATIENCE, taker.read_exact(&mut token)).await
            && let Some(give) = self.offers().remove(&token)
        {
            // It may just have been withdrawn.
            let _ = give.send(taker);
        }
    }
}

/// Listens there, for nobody but us to connect. What a shim before us has left is taken away.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = console::bind(socket);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn token() -> io::Result<Token> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut token = [0; TOKEN];
    // So few bytes are never given in part.
    getrandom(&mut token, GetRandomFlags::empty())?;
    Ok(token.map(|byte| DIGITS[usize::from(byte & 15)]))
}

/// Something that is held out. When this is dropped it is not any more.
pub struct Offer {
    desk: Arc<Desk>,
    token: Token,
    taken: oneshot::Receiver<UnixStream>,
}

impl Offer {
    /// Where and how to take it.
    pub fn words(&self) -> HandOver {
        let token = String::from_utf8_lossy(&self.token).into_owned();
        let socket = self.desk.socket.to_string_lossy().into_owned();
        HandOver { socket, token, ..Default::default() }
    }

    /// Waits for whoever takes it. `None` if nobody does in time.
    pub async fn taken(mut self) -> Option<Line> {
        timeout(PATIENCE, &mut self.taken).await.ok()?.ok().map(Line)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.desk.offers().remove(&self.token);
    }
}

/// The connection to a taker.
pub struct Line(UnixStream);

impl Line {
    pub async fn give(&self, streams: &Streams) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || streams.send(self.0.as_fd())).await
    }

    /// Returns when the taker has gone. There is nothing for it to say: if it does, it is no taker
    /// of ours.
    pub async fn closed(&self) {
        let read = || Ok(rustix::io::read(&self.0, &mut [0; 1])?);
        let _ = self.0.async_io(Interest::READABLE, read).await;
    }

    /// Says how what was taken has ended.
    pub async fn end(self, code: i32) {
        let code = code.to_be_bytes();
        let write = || Ok(rustix::io::write(&self.0, &code)?);
        // There may be nobody left to tell.
        let _ = self.0.async_io(Interest::WRITABLE, write).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn say(offer: &HandOver, words: &[u8]) -> UnixStream {
        let mut line = UnixStream::connect(&offer.socket).await.unwrap();
        line.write_all(words).await.unwrap();
        line
    }

    async fn receive(line: &UnixStream) -> io::Result<Streams> {
        let receive = line.async_io(Interest::READABLE, || Streams::receive(line.as_fd()));
        timeout(SOON, receive).await.expect("an answer")
    }

    #[tokio::test]
    async fn what_is_held_out_is_given_once_and_only_for_its_token() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let desk = Desk::open(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (offer, withdrawn) = (desk.offer().unwrap(), desk.offer().unwrap());
        let (words, old) = (offer.words(), withdrawn.words());
        assert_ne!(words.token, old.token);
        drop(withdrawn);
        for wrong in [old.token.as_bytes(), &[b'0'; TOKEN]] {
            assert!(receive(&say(&words, wrong).await).await.is_err());
        }
        let taker = say(&words, words.token.as_bytes()).await;
        let line = offer.taken().await.unwrap();
        line.give(&Streams::default()).await.unwrap();
        receive(&taker).await.unwrap();
        assert!(receive(&say(&words, words.token.as_bytes()).await).await.is_err());
        drop(taker);
        timeout(SOON, line.closed()).await.expect("its end is seen");
        assert!(desk.offers().is_empty());
    }

    #[tokio::test]
    async fn a_shim_opens_where_another_was_before_it_however_long_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("d".repeat(120));
        fs::create_dir(&dir).unwrap();
        drop(console::bind(&dir.join(SOCKET)).unwrap());
        let desk = Desk::open(&dir).unwrap();
        console::connect(&desk.socket).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_is_said_ends_without_a_panic(words in prop::collection::vec(any::<u8>(), 0..99)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (mut here, there) = UnixStream::pair().unwrap();
                let desk = Arc::new(Desk { socket: PathBuf::new(), offers: Mutex::default() });
                let offer = desk.offer().unwrap();
                here.write_all(&words).await.unwrap();
                here.shutdown().await.unwrap();
                timeout(SOON, desk.clone().meet(there)).await.unwrap();
                assert!(desk.offers().contains_key(&offer.token), "nobody guesses it");
            });
        }
    }
}
