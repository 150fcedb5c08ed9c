//! A server that says exactly what a test wants it to say, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub target: String,
    /// As one text, in lower case up to each colon.
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// What to do after the bytes of a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    GoOn,
    Close,
    Hang,
    /// A byte each time, for ever.
    Trickle(Duration),
    /// Speak TLS from here on: what a CONNECT proxy's far end does.
    StartTls,
}

#[derive(Clone, Debug)]
pub struct Reply {
    head: String,
    body: Vec<u8>,
    then: Then,
    sized: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        let head = format!("HTTP/1.1 {status} Whatever\r\n");
        Reply { head, body: body.into(), then: Then::GoOn, sized: true }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::new(200, body)
    }

    /// The same without its body, as HEAD gets it.
    pub fn head(reply: Reply) -> Reply {
        let length = reply.body.len();
        Reply { body: Vec::new(), ..reply.promising(length) }
    }

    /// These bytes, and no HTTP unless they are.
    pub fn raw(bytes: impl Into<Vec<u8>>, then: Then) -> Reply {
        Reply { head: String::new(), body: bytes.into(), then, sized: true }
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.sized &= !name.eq_ignore_ascii_case("content-length")
            && !name.eq_ignore_ascii_case("transfer-encoding");
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// Promises this many bytes, however many there are.
    pub fn promising(self, length: usize) -> Reply {
        self.header("content-length", &length.to_string())
    }

    /// In one chunk; properly ended unless `then` says otherwise.
    pub fn chunked(mut self, ended: bool) -> Reply {
        let mut body = format!("{:x}\r\n", self.body.len()).into_bytes();
        body.extend_from_slice(&self.body);
        body.extend_from_slice(if ended { b"\r\n0\r\n\r\n" } else { b"\r\n" });
        self.body = body;
        self.header("transfer-encoding", "chunked")
    }

    pub fn then(mut self, then: Then) -> Reply {
        self.then = then;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        if self.head.is_empty() {
            return self.body.clone();
        }
        let length = format!("content-length: {}\r\n", self.body.len());
        let length = if self.sized { length.as_str() } else { "" };
        [self.head.as_bytes(), length.as_bytes(), b"\r\n", &self.body].concat()
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

#[derive(Clone)]
struct Inside {
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Seen>>>,
    tls: Option<TlsAcceptor>,
    gone: watch::Sender<usize>,
    connections: Arc<AtomicUsize>,
}

pub struct Evil {
    pub address: SocketAddr,
    inside: Inside,
    scheme: &'static str,
    task: JoinHandle<()>,
}

impl Evil {
    pub async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Evil {
        Evil::with(None, false, answer).await
    }

    pub async fn start_tls(
        tls: ServerConfig,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Evil {
        Evil::with(Some(tls), true, answer).await
    }

    /// Plain at first, for `Then::StartTls`.
    pub async fn start_proxy(
        tls: ServerConfig,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Evil {
        Evil::with(Some(tls), false, answer).await
    }

    async fn with(
        tls: Option<ServerConfig>,
        at_once: bool,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Evil {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Inside {
            answer: Arc::new(answer),
            seen: Arc::default(),
            tls: tls.map(|tls| TlsAcceptor::from(Arc::new(tls))),
            gone: watch::Sender::new(0),
            connections: Arc::default(),
        };
        let task = tokio::spawn(listen(listener, inside.clone(), at_once));
        let scheme = if at_once { "https" } else { "http" };
        Evil { address, inside, scheme, task }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.inside.seen.lock().unwrap().clone()
    }

    /// How many there have been.
    pub fn connections(&self) -> usize {
        self.inside.connections.load(Ordering::SeqCst)
    }

    /// When a peer has closed a connection that was being written to.
    pub async fn hung_up_on(&self) {
        let mut gone = self.inside.gone.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), gone.wait_for(|n| *n > 0));
        waited.await.expect("the client hangs up").unwrap();
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Aborting this ends the connections too: they are its children.
async fn listen(listener: TcpListener, inside: Inside, at_once: bool) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        inside.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(welcome(stream, inside.clone(), at_once));
    }
}

async fn welcome(mut stream: TcpStream, inside: Inside, at_once: bool) {
    let start_tls = at_once || serve(&mut stream, &inside).await == Some(Then::StartTls);
    if let (true, Some(tls)) = (start_tls, inside.tls.clone())
        && let Ok(mut stream) = tls.accept(stream).await
    {
        serve(&mut stream, &inside).await;
    }
}

async fn serve(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    inside: &Inside,
) -> Option<Then> {
    while let Some(seen) = read(stream).await {
        inside.seen.lock().unwrap().push(seen.clone());
        let reply = (inside.answer)(&seen);
        stream.write_all(&reply.bytes()).await.ok()?;
        stream.flush().await.ok()?;
        match reply.then {
            Then::GoOn => {}
            Then::Close => break,
            Then::StartTls => return Some(Then::StartTls),
            Then::Hang => {
                let mut sink = [0; 64];
                while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
                inside.gone.send_modify(|gone| *gone += 1);
                return None;
            }
            Then::Trickle(pause) => {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
                inside.gone.send_modify(|gone| *gone += 1);
                return None;
            }
        }
    }
    stream.shutdown().await.ok()?;
    None
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut seen = Seen { method, target, headers, body: String::new() };
    let length = seen.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).ok()?;
    Some(seen)
}
