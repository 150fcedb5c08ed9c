//! The server: it gives URLs out, and serves those who come with them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    Ask, Config, Error, Load, Target,
    agree::{Protocol, Refused, agree},
    load::{Share, Total},
    serve::{Client, Patience, serve},
    tls::Tls,
    tokens::Tokens,
};

/// How long a client may take to show its token.
const REQUEST: Duration = Duration::from_secs(10);

/// How many clients may be at that at one time. If there are more, those go that have been longest at
/// it: one that has a token shows it at once.
const STRANGERS: usize = 256;

/// What a client's request may take before it has shown a token.
const HEAD: usize = 16 << 10;

/// How long after it could not take a connection the server tries again: most often there are no
/// descriptors, of which nothing tells when there are some.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves exec, attach and port-forward.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Arc<dyn Target>,
    tls: Option<Arc<Tls>>,
    patience: Patience,
    tokens: Mutex<Tokens>,
    total: Arc<Total>,
}

/// What a client has upgraded to.
type Upgrade = (OnUpgrade, Ask, Protocol);

impl Server {
    pub async fn bind(config: Config, target: Arc<dyn Target>) -> Result<Self, Error> {
        let Config { address, idle, creation, tls } = config;
        let tls = tls.map(Tls::load).transpose()?;
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = reachable(listener.local_addr().map_err(failed)?);
        let patience = Patience { idle, creation };
        let (tokens, total) = (Mutex::default(), Arc::default());
        let shared = Shared { target, tls, patience, tokens, total };
        Ok(Self { listener, address, shared: Arc::new(shared) })
    }

    /// A URL at which a client can have this, once, within a minute.
    pub fn url(&self, ask: Ask) -> Result<String, Error> {
        ask.check()?;
        let verb = ask.verb();
        let token = self.shared.tokens().give(ask)?;
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}/{verb}/{token}", self.address))
    }

    pub fn load(&self) -> Load {
        self.shared.total.load()
    }

    /// Serves until then. Clients that are connected at that time are cut off, and their commands
    /// killed.
    pub async fn serve(&self, until: impl Future<Output = ()>) {
        let mut strangers = Strangers::default();
        let mut connections = JoinSet::new();
        let mut until = pin!(until);
        loop {
            tokio::select! {
                () = &mut until => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        let shared = Arc::clone(&self.shared);
                        connections.spawn(connection(shared, socket, strangers.admit()));
                    }
                    Err(error) => {
                        warn!("no stream can be taken: {error}");
                        sleep(PAUSE).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }
}

/// Those who have not shown a token yet. To be dropped here is to be sent away.
#[derive(Default)]
struct Strangers(VecDeque<oneshot::Sender<Infallible>>);

/// Comes when a stranger is to go. Dropped by who is none any more.
type Away = oneshot::Receiver<Infallible>;

impl Strangers {
    fn admit(&mut self) -> Away {
        self.0.retain(|stranger| !stranger.is_closed());
        if self.0.len() >= STRANGERS {
            self.0.pop_front();
        }
        let (stranger, away) = oneshot::channel();
        self.0.push_back(stranger);
        away
    }
}

impl Shared {
    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a client on this host reaches a server that listens everywhere.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn connection(shared: Arc<Shared>, socket: TcpStream, away: Away) {
    let load = Share::new(Arc::clone(&shared.total));
    if let Err(error) = prepare(&socket) {
        return debug!("a client has gone: {error}");
    }
    let client = tokio::select! {
        client = timeout(REQUEST, client(&shared, socket)) => client,
        _ = away => return,
    };
    let Ok(Some(client)) = client else { return };
    serve(Arc::clone(&shared.target), client, shared.patience, load).await;
}

/// A client once it has upgraded, if it does.
async fn client(shared: &Shared, socket: TcpStream) -> Option<Client> {
    let Some(tls) = &shared.tls else {
        let (ask, protocol, Parts { io, read_buf: early, .. }) = upgrade(shared, socket).await?;
        return Some(Client { ask, protocol, socket: io.into_inner(), tls: None, early });
    };
    let socket = tls.accept(socket).await;
    let socket = socket.inspect_err(|error| debug!("a client does not speak TLS: {error}")).ok()?;
    let (ask, protocol, Parts { io, read_buf: early, .. }) = upgrade(shared, socket).await?;
    let (socket, tls) = io.into_inner().into_inner();
    Some(Client { ask, protocol, socket, tls: Some(Box::new(tls)), early })
}

/// What is typed is sent at once, and a client whose host is gone is found out.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(socket, 4)?;
    Ok(())
}

/// Answers one request, and waits until the client has what it upgraded to, if it did.
async fn upgrade<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    shared: &Shared,
    socket: S,
) -> Option<(Ask, Protocol, Parts<TokioIo<S>>)> {
    let place: Mutex<Option<Upgrade>> = Mutex::default();
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(shared, request).unwrap_or_else(|refused| Answer::refusal(&refused));
        *place.lock().unwrap_or_else(PoisonError::into_inner) = answer.upgrade;
        async { Ok::<_, Infallible>(answer.response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        debug!("a client sent no request: {error}");
    }
    let upgrade = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (upgraded, ask, protocol) = upgrade?;
    let parts = upgraded.await.ok()?.downcast().ok()?;
    Some((ask, protocol, parts))
}

struct Answer {
    response: Response<Full<Bytes>>,
    upgrade: Option<Upgrade>,
}

impl Answer {
    fn refusal(refused: &Refused) -> Self {
        let text = Full::new(Bytes::from(format!("{}\n", refused.why)));
        let mut response = Response::new(text);
        *response.status_mut() = refused.status;
        response.headers_mut().extend(refused.headers.iter().cloned());
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        // Not by hyper's own setting, which says `close` with an upgrade too: Go's client then sees no
        // `Upgrade` there any more.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Self { response, upgrade: None }
    }
}

fn answer(shared: &Shared, mut request: Request<Incoming>) -> Result<Answer, Refused> {
    let refused = |status, why: &str| Refused { status, why: why.to_owned(), headers: Vec::new() };
    let ask = match request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/')) {
        Some((verb, token)) => shared.tokens().take(verb, token),
        None => None,
    };
    let none = "there is nothing here; a URL is good once, for a minute";
    let ask = ask.ok_or_else(|| refused(StatusCode::NOT_FOUND, none))?;
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are taken"));
    }
    let agreed = agree(&ask, request.method(), request.headers())?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(agreed.headers);
    let upgrade = Some((hyper::upgrade::on(&mut request), ask, agreed.protocol));
    Ok(Answer { response, upgrade })
}
