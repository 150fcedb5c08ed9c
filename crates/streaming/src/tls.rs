//! The certificate of the server, read from its files, and read again when they have changed: each
//! client that comes has them looked at, so that nothing watches them meanwhile.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

/// The files of a certificate, with those between it and its CA, and of the key to it: PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("reading {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no PEM certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no PEM private key", .0.display())]
    NoKey(PathBuf),
    #[error("the certificate {} cannot be used with the key {}", files.certificate.display(), files.key.display())]
    Refused {
        files: Files,
        #[source]
        source: rustls::Error,
    },
}

/// What tells a file from a later one.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// A server's side of TLS.
pub(crate) struct Tls {
    files: Files,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamps: [Stamp; 2],
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files; blocks.
    pub(crate) fn load(files: Files) -> Result<Arc<Self>, Unusable> {
        let loaded = Loaded { stamps: files.stamps(), config: files.read()? };
        Ok(Arc::new(Self { files, loaded: Mutex::new(loaded) }))
    }

    /// Greets a client.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let this = Arc::clone(self);
        let config = tokio::task::spawn_blocking(move || this.config()).await?;
        TlsAcceptor::from(config).accept(socket).await
    }

    /// By the files as they are now. If those cannot be used, as they were: somebody may be half way
    /// through replacing them.
    fn config(&self) -> Arc<ServerConfig> {
        let stamps = self.files.stamps();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match self.files.read() {
                Ok(config) => {
                    info!(certificate = %self.files.certificate.display(), "read again");
                    loaded.config = config;
                }
                Err(error) => {
                    let error = names::chain(&error);
                    warn!(error, "the new certificate of the streaming server cannot be used");
                }
            }
        }
        Arc::clone(&loaded.config)
    }
}

impl Files {
    fn stamps(&self) -> [Stamp; 2] {
        [&self.certificate, &self.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        })
    }

    fn read(&self) -> Result<Arc<ServerConfig>, Unusable> {
        let text = contents(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| Unusable::NoCertificate(self.certificate.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(&contents(&self.key)?);
        let key = key.map_err(|_| Unusable::NoKey(self.key.clone()))?;
        let refused = |source| Unusable::Refused { files: self.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(refused)?;
        let mut config =
            builder.with_no_client_auth().with_single_cert(chain, key).map_err(refused)?;
        // No client comes twice with what it got: a URL is good once.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, Unusable> {
    fs::read(path).map_err(|source| Unusable::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key, in a folder.
    fn write(dir: &Path) -> Files {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = Files { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn same(one: &Arc<ServerConfig>, other: &Arc<ServerConfig>) -> bool {
        Arc::ptr_eq(one, other)
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let good = write(dir.path());
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        let other = write(&other);
        let why = |certificate: &Path, key: &Path| {
            let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
            names::chain(&Tls::load(files).err().unwrap())
        };
        let missing = dir.path().join("missing.pem");
        assert!(why(&missing, &good.key).contains("missing.pem: No such file"));
        assert!(why(&good.key, &good.key).contains("key.pem holds no PEM certificate"));
        assert!(
            why(&good.certificate, &good.certificate).contains("cert.pem holds no PEM private")
        );
        let why = why(&good.certificate, &other.key);
        assert!(why.contains("cannot be used with the key") && why.contains("Mismatch"), "{why}");
    }

    #[test]
    fn files_that_change_are_read_again_and_bad_ones_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path());
        let tls = Tls::load(files.clone()).unwrap();
        let first = tls.config();
        assert!(same(&first, &tls.config()), "nothing has changed");
        fs::write(&files.key, "half a k").unwrap();
        assert!(same(&first, &tls.config()), "the old one is better than none");
        fs::remove_file(&files.certificate).unwrap();
        assert!(same(&first, &tls.config()));
        write(dir.path());
        let second = tls.config();
        assert!(!same(&first, &second) && same(&second, &tls.config()));
    }
}
