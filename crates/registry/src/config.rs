//! What the client is told from outside: where `hosts.toml` files are, and how long to wait.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// How to reach registries. `Default` is fit for production, apart from `hosts_dirs`, which is
/// empty.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories with one folder a registry, as containerd's `certs.d`. A folder of the registry's
    /// own in any of them is preferred to a `_default` in any; between equals, the first wins.
    pub hosts_dirs: Vec<PathBuf>,
    /// For name resolution, TCP and TLS together; `dial_timeout` in `hosts.toml` overrides it.
    /// 30 s, as containerd.
    pub connect_timeout: Duration,
    /// From a connection until the headers of an answer. 30 s.
    pub header_timeout: Duration,
    /// In this time `progress_bytes` of a body must come, or the connection counts as stalled and
    /// is made anew from where it stopped. 60 s: containerd waits 5 min, but then gives up.
    pub progress_timeout: Duration,
    /// Less than this in `progress_timeout` is no progress, so that a peer that lets a byte go now
    /// and then cannot hold a pull for ever. 16 KiB.
    pub progress_bytes: u64,
    /// How often one endpoint is asked before the next is. 3; after a timeout at most 2.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each. 250 ms.
    pub backoff: Duration,
    /// The longest wait between tries. A `Retry-After` beyond it is not waited for. 30 s.
    pub longest_wait: Duration,
    /// How often in a row a blob is resumed from one endpoint without progress between. 4.
    pub resumes: u32,
    /// How long a mirror that could not be reached is passed over, so that not every layer of an
    /// image waits for it. 30 s.
    pub shun: Duration,
    /// `User-Agent`.
    pub user_agent: String,
    /// Proxies; from the environment by default.
    pub proxies: Proxies,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts_dirs: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(30),
            progress_timeout: Duration::from_secs(60),
            progress_bytes: 16 * 1024,
            tries: 3,
            backoff: Duration::from_millis(250),
            longest_wait: Duration::from_secs(30),
            resumes: 4,
            shun: Duration::from_secs(30),
            user_agent: concat!("podbay/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::from_env(),
        }
    }
}

/// Which proxy, if any, leads to which host. Only `http://` proxies, and only to `https` registries,
/// through CONNECT; loopback is never proxied.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

impl Proxies {
    /// As `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (or in lower case) say now.
    pub fn from_env() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    /// No proxy at all.
    pub fn none() -> Self {
        Self(Arc::new(Matcher::builder().build()))
    }

    /// One proxy for every `https` host but those that `except` lists, as `NO_PROXY` would.
    pub fn new(proxy: &str, except: &str) -> Self {
        Self(Arc::new(Matcher::builder().https(proxy).no(except).build()))
    }

    pub(crate) fn towards(&self, target: &Uri) -> Option<Intercept> {
        self.0.intercept(target)
    }
}

impl fmt::Debug for Proxies {
    /// A proxy's address may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies(..)")
    }
}
