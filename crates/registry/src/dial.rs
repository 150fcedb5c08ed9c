//! From a URL to a connected socket: name resolution, TCP, and CONNECT through a proxy, with one
//! deadline around all of it and the TLS handshake that follows.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Uri, http::uri::Scheme};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use crate::{config::Proxies, place};

type BoxError = Box<dyn StdError + Send + Sync>;
type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A connector to `http` and `https` URLs that gives up in time.
pub(crate) type Dial = InTime<HttpsConnector<Tcp>>;

/// How to get a connection.
pub(crate) struct Way {
    pub(crate) tls: ClientConfig,
    pub(crate) timeout: Duration,
    pub(crate) proxies: Proxies,
    /// Overrides `proxies`.
    pub(crate) proxy: Option<Uri>,
}

impl Way {
    pub(crate) fn dial(self) -> Dial {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        // Shared out among a name's addresses, so that the first cannot eat the others' time.
        tcp.set_connect_timeout(Some(self.timeout));
        let tcp = Tcp { tcp, proxies: self.proxies, proxy: self.proxy.map(Arc::new) };
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        InTime { inner: https, timeout: self.timeout }
    }
}

/// TCP, directly or through a proxy.
#[derive(Clone)]
pub(crate) struct Tcp {
    tcp: HttpConnector,
    proxies: Proxies,
    proxy: Option<Arc<Uri>>,
}

impl Tcp {
    fn way(&self, target: &Uri) -> Direction {
        if let Some(proxy) = &self.proxy {
            return Direction::Through(Uri::clone(proxy));
        }
        if place::is_loopback(target.host().unwrap_or_default())
            || target.scheme() != Some(&Scheme::HTTPS)
        {
            return Direction::Straight;
        }
        self.proxies.towards(target).map_or(Direction::Straight, Direction::Intercepted)
    }
}

enum Direction {
    Straight,
    Through(Uri),
    Intercepted(Intercept),
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Dialling<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let way = self.way(&target);
        let mut tcp = self.tcp.clone();
        Box::pin(async move {
            match way {
                Direction::Straight => Ok(tcp.call(target).await?),
                Direction::Through(proxy) => Ok(Tunnel::new(proxy, tcp).call(target).await?),
                Direction::Intercepted(found) => Ok(tunnel(&found, tcp)?.call(target).await?),
            }
        })
    }
}

fn tunnel(proxy: &Intercept, tcp: HttpConnector) -> Result<Tunnel<HttpConnector>, io::Error> {
    if proxy.uri().scheme() != Some(&Scheme::HTTP) {
        return Err(io::Error::other("the environment names a proxy that is not http://"));
    }
    let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
    Ok(match proxy.basic_auth() {
        Some(auth) => tunnel.with_auth(auth.clone()),
        None => tunnel,
    })
}

/// A connector that fails with `io::ErrorKind::TimedOut` when the inner one takes too long.
#[derive(Clone)]
pub(crate) struct InTime<C> {
    inner: C,
    timeout: Duration,
}

impl<C> Service<Uri> for InTime<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Dialling<C::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let dialling = self.inner.call(target);
        let timeout = self.timeout;
        Box::pin(async move {
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            tokio::time::timeout(timeout, dialling).await.map_err(late)?
        })
    }
}
