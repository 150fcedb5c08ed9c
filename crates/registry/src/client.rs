//! The registry client as its callers see it, and the list of endpoints that each call works
//! through.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use hyper::{
    HeaderMap, Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use names::{Digest, ImageRef};
use rustls::RootCertStore;
use tokio::time::Instant;

use crate::{
    auth::Auth,
    blob::{self, Blob},
    body::Body,
    config::Config,
    dial::Way,
    endpoint::{self, Endpoint, Found, Line},
    error::{Attempt, Error, Tried},
    fault::Fault,
    hosts::Warning,
    http::Http,
    manifest::{self, Fetched, Wanted},
    patience::Patience,
    peer::{Asked, Peer},
    place::Origin,
    tls::{self, Trust},
    token::Tokens,
};

/// A client of all registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

/// What outlives a call.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) user_agent: HeaderValue,
    pub(crate) tokens: Tokens,
    lines: Mutex<HashMap<Line, Http>>,
    /// Read once: they are many, and change with the host's packages.
    roots: OnceLock<Arc<RootCertStore>>,
    warned: Mutex<HashSet<(PathBuf, String)>>,
    /// Who gave a blob that was not what its digest says.
    liars: Mutex<HashSet<(Origin, Digest)>>,
    /// Who could not be reached, and until when not to try.
    absent: Mutex<HashMap<Origin, Instant>>,
}

/// Pools of connections kept. They differ only by what `hosts.toml` says of TLS, so it takes many
/// edits to get here.
const MOST_LINES: usize = 64;
const MOST_LIARS: usize = 1024;

const CONTENT_DIGEST: &str = "docker-content-digest";

#[derive(Clone, Copy)]
enum Need {
    Pull,
    Resolve,
}

impl Registry {
    /// # Errors
    /// `BadUserAgent`. Files are read by each call, not here.
    pub fn new(config: Config) -> Result<Registry, Error> {
        let user_agent = HeaderValue::from_str(&config.user_agent)
            .map_err(|_| Error::BadUserAgent(config.user_agent.clone()))?;
        Ok(Registry(Arc::new(Shared {
            config,
            user_agent,
            tokens: Tokens::default(),
            lines: Mutex::default(),
            roots: OnceLock::new(),
            warned: Mutex::default(),
            liars: Mutex::default(),
            absent: Mutex::default(),
        })))
    }

    /// A manifest or index by its tag or digest. Its bytes have the digest that it is returned
    /// with, which is the one asked for if one was.
    pub async fn manifest(
        &self,
        image: &ImageRef,
        wanted: &str,
        auth: Option<&Auth>,
    ) -> Result<Fetched, Error> {
        let wanted = Wanted::parse(wanted)?;
        let need = if matches!(wanted, Wanted::Tag(_)) { Need::Resolve } else { Need::Pull };
        let mut peers = self.peers(image, wanted.of(&image.repository()), need, auth).await?;
        while let Some(peer) = peers.next() {
            match manifest_from(&peer, &wanted).await {
                Ok(fetched) => {
                    peers.tell_what_failed();
                    return Ok(fetched);
                }
                Err(fault) => peers.failed(&peer, fault),
            }
        }
        Err(peers.give_up())
    }

    /// The digest of what a tag stands for, by HEAD if the server says it there. Nobody has verified
    /// it: it is good for asking by, and for comparing with what is had. Docker Hub does not count
    /// it as a pull.
    pub async fn resolve(
        &self,
        image: &ImageRef,
        tag: &str,
        auth: Option<&Auth>,
    ) -> Result<Digest, Error> {
        let wanted = match Wanted::parse(tag)? {
            Wanted::Digest(digest) => return Ok(digest),
            tag => tag,
        };
        let what = wanted.of(&image.repository());
        let mut peers = self.peers(image, what, Need::Resolve, auth).await?;
        while let Some(peer) = peers.next() {
            match digest_from(&peer, &wanted).await {
                Ok(digest) => return Ok(digest),
                Err(fault) => peers.failed(&peer, fault),
            }
        }
        Err(peers.give_up())
    }

    /// A blob, to be read. When this returns, its first bytes are on their way. Give the size if a
    /// manifest says it: a blob that is longer is refused before the excess is handed on, and one
    /// that breaks off is known to. Reading it to its end verifies the digest; a reader that stops
    /// before has bytes that nobody has verified. Dropping it ends the download.
    pub async fn blob(
        &self,
        image: &ImageRef,
        digest: &Digest,
        size: Option<u64>,
        auth: Option<&Auth>,
    ) -> Result<Blob, Error> {
        let what = format!("blob {digest} of {}", image.repository());
        let mut peers = self.peers(image, what, Need::Pull, auth).await?;
        peers.distrust(digest);
        blob::open(peers, digest.clone(), size).await
    }

    /// The URLs that would be asked for this image's tag, in order.
    pub async fn servers(&self, image: &ImageRef) -> Result<Vec<String>, Error> {
        let peers = self.peers(image, image.repository(), Need::Resolve, None).await?;
        let url = |Peer { endpoint: e, .. }: &Peer| format!("{}{}", e.origin, e.root);
        Ok(peers.left.iter().map(url).collect())
    }

    async fn peers(
        &self,
        image: &ImageRef,
        what: String,
        need: Need,
        auth: Option<&Auth>,
    ) -> Result<Peers, Error> {
        let (shared, image) = (Arc::clone(&self.0), image.clone());
        let auth = auth.filter(|auth| !auth.is_empty()).cloned();
        let find = move || {
            let found = endpoint::find(&shared.config.hosts_dirs, image.registry())?;
            shared.warn(&found);
            let able = found.endpoints.into_iter().filter(|endpoint| match need {
                Need::Pull => endpoint.pull,
                Need::Resolve => endpoint.resolve,
            });
            let left: VecDeque<_> =
                able.map(|endpoint| shared.peer(endpoint, &image, auth.as_ref())).collect();
            let registry = image.registry().to_owned();
            let what = match need {
                Need::Pull => "pull",
                Need::Resolve => "resolve",
            };
            if left.is_empty() { Err(Error::NoServer { registry, what }) } else { Ok(left) }
        };
        let left =
            tokio::task::spawn_blocking(find).await.expect("reading files does not panic")?;
        Ok(Peers { left, tried: Tried { what, attempts: Vec::new() }, last: None })
    }
}

impl Shared {
    fn peer(self: &Arc<Self>, endpoint: Endpoint, image: &ImageRef, auth: Option<&Auth>) -> Peer {
        let allowed = auth.filter(|auth| auth.is_for(&endpoint, image.registry()));
        let far = Line { client: None, skip_verify: false, ..endpoint.line.clone() };
        Peer {
            near: self.http(&endpoint.line),
            far: self.http(&far),
            shared: Arc::clone(self),
            endpoint,
            auth: allowed.cloned(),
            withheld: allowed.is_none() && auth.is_some(),
            repository: image.path().to_owned(),
            secrets: Mutex::new(auth.map(Auth::secrets).unwrap_or_default()),
        }
    }

    fn http(&self, line: &Line) -> Http {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = lines.get(line) {
            return http.clone();
        }
        if lines.len() >= MOST_LINES {
            lines.clear();
        }
        let http = Http::new(self.way(line), self.config.header_timeout);
        lines.insert(line.clone(), http.clone());
        http
    }

    fn way(&self, line: &Line) -> Way {
        let identity = line.client.as_deref().map(|(certificate, key)| {
            tls::identity(certificate, key).expect("a line's certificate and key were checked")
        });
        let trust = Trust { ca: line.ca.clone(), identity, skip_verify: line.skip_verify };
        Way {
            tls: trust.client_config(self.roots.get_or_init(|| Arc::new(tls::native_roots()))),
            timeout: line.dial_timeout.unwrap_or(self.config.connect_timeout),
            proxies: self.config.proxies.clone(),
            proxy: line.proxy.clone(),
        }
    }

    /// Once for each, not with each pull.
    fn warn(&self, found: &Found) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for (file, Warning { line, why }) in &found.warnings {
            if warned.insert((file.clone(), why.clone())) {
                tracing::warn!("{}:{line}: {why}", file.display());
            }
        }
    }
}

async fn manifest_from(peer: &Peer, wanted: &Wanted) -> Result<Fetched, Fault> {
    let mut patience = Patience::new(&peer.shared.config);
    loop {
        match manifest_once(peer, wanted).await {
            Ok(fetched) => return Ok(fetched),
            Err(fault) => patience.wait(fault).await?,
        }
    }
}

async fn digest_from(peer: &Peer, wanted: &Wanted) -> Result<Digest, Fault> {
    let head = peer.get(&manifest_by(Method::HEAD, wanted)).await?;
    let said = head.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok());
    match said.and_then(|text| text.parse().ok()) {
        Some(digest) => Ok(digest),
        None => Ok(manifest_from(peer, wanted).await?.digest),
    }
}

fn manifest_by(method: Method, wanted: &Wanted) -> Asked {
    let headers = HeaderMap::from_iter([(ACCEPT, manifest::ACCEPT)]);
    Asked { method, path: format!("manifests/{}", wanted.as_str()), headers }
}

async fn manifest_once(peer: &Peer, wanted: &Wanted) -> Result<Fetched, Fault> {
    let response = peer.once(&manifest_by(Method::GET, wanted)).await?;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (kind, claimed) = (header(CONTENT_TYPE.as_str()), header(CONTENT_DIGEST));
    let bytes = Body::new(response, &peer.shared.config).whole(manifest::LARGEST).await?;
    manifest::check(wanted, kind.as_deref(), claimed.as_deref(), bytes)
}

/// The endpoints still to be asked for one thing, and how those that were have failed.
pub(crate) struct Peers {
    left: VecDeque<Peer>,
    tried: Tried,
    last: Option<Fault>,
}

impl Peers {
    pub(crate) fn next(&mut self) -> Option<Peer> {
        let garbled = self.last.as_ref().is_some_and(Fault::is_garbled);
        while let Some(peer) = self.left.pop_front() {
            let other = self.left.iter().any(|peer| !peer.endpoint.only_if_garbled);
            if other && peer.is_absent() {
                self.tried.attempts.push(Attempt {
                    endpoint: peer.endpoint.origin.to_string(),
                    answer: "not asked, since it could not be reached a moment ago".to_owned(),
                });
            } else if garbled || !peer.endpoint.only_if_garbled {
                return Some(peer);
            }
        }
        None
    }

    pub(crate) fn failed(&mut self, peer: &Peer, fault: Fault) {
        self.tried.attempts.push(peer.attempt(&fault));
        if fault.is_absence() {
            peer.shun();
        }
        self.last = Some(fault);
    }

    pub(crate) fn give_up(&mut self) -> Error {
        let what = self.tried.what.clone();
        let tried = Tried { what, attempts: std::mem::take(&mut self.tried.attempts) };
        let last = self.last.take().expect("an endpoint was asked, and failed");
        Error::fetch(&last, tried)
    }

    /// A fetch that succeeds has no error to say which mirrors are broken.
    pub(crate) fn tell_what_failed(&self) {
        if !self.tried.attempts.is_empty() {
            tracing::warn!("fetched from the next server after failures: {}", self.tried);
        }
    }

    /// Those who have lied about it are asked last.
    fn distrust(&mut self, digest: &Digest) {
        let Some(shared) = self.left.front().map(|peer| Arc::clone(&peer.shared)) else { return };
        let liars = shared.liars.lock().unwrap_or_else(PoisonError::into_inner);
        let lied = |peer: &Peer| liars.contains(&(peer.endpoint.origin.clone(), digest.clone()));
        self.left.make_contiguous().sort_by_key(lied);
    }
}

impl Peer {
    fn is_absent(&self) -> bool {
        let absent = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(&self.endpoint.origin).is_some_and(|until| *until > Instant::now())
    }

    fn shun(&self) {
        let now = Instant::now();
        let mut absent = self.shared.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.retain(|_, until| *until > now);
        absent.insert(self.endpoint.origin.clone(), now + self.shared.config.shun);
    }

    /// Remembers that it gave something else under this digest, so that another try begins with
    /// another endpoint if there is one.
    pub(crate) fn lied(&self, digest: &Digest) {
        let mut liars = self.shared.liars.lock().unwrap_or_else(PoisonError::into_inner);
        if liars.len() >= MOST_LIARS {
            liars.clear();
        }
        liars.insert((self.endpoint.origin.clone(), digest.clone()));
    }
}
