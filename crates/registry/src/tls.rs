//! Whom to believe over TLS: the host's certificate store, the `ca` files of `hosts.toml`, or, by
//! `skip_verify`, anybody. Built on rustls with ring; the store of webpki-roots is not carried,
//! since a node's operator decides whom the node trusts.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

/// A CA's or a client's file is not what it should be.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum BadPem {
    #[error("it holds no PEM certificate")]
    NoCertificate,
    #[error("it holds no PEM private key")]
    NoKey,
    #[error("a certificate in it cannot be read: {0}")]
    Certificate(rustls::Error),
    #[error("its key does not fit its certificate: {0}")]
    Key(rustls::Error),
}

/// Certificates to trust, as they are in PEM files.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty()).ok_or(BadPem::NoCertificate)?;
    found.iter().try_for_each(|certificate| {
        ParsedCertificate::try_from(certificate).map(drop).map_err(BadPem::Certificate)
    })?;
    Ok(found)
}

/// A client certificate with its key, both in PEM.
pub(crate) fn identity(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, BadPem> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadPem::NoKey)?;
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(BadPem::Key)
}

/// The certificates that this host trusts, as OpenSSL and Go find them. What cannot be read is left
/// out; none at all is not an error, as a registry may be of plain HTTP or have its own `ca`.
pub(crate) fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Whom to believe, and who to be.
#[derive(Default)]
pub(crate) struct Trust {
    pub(crate) ca: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    pub(crate) skip_verify: bool,
}

impl Trust {
    pub(crate) fn client_config(self, native: &Arc<RootCertStore>) -> ClientConfig {
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(native, provider)));
        match self.identity {
            Some(key) => builder
                .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        }
    }

    fn verifier(&self, native: &Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Verifier {
        let mut roots = Arc::clone(native);
        if !self.ca.is_empty() {
            Arc::make_mut(&mut roots).add_parsable_certificates(self.ca.iter().cloned());
        }
        let chains = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        Verifier {
            chains: chains.build().ok(),
            pinned: self.ca.clone(),
            skip: self.skip_verify,
            provider,
        }
    }
}

fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// Chains as everybody verifies them, and two ways out: a self-signed certificate that is itself
/// among the `ca` (which Go accepts and webpki does not, and which is how most private registries
/// are set up), and `skip_verify`.
#[derive(Debug)]
struct Verifier {
    /// None when nobody is trusted.
    chains: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    skip: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.skip {
            return Ok(ServerCertVerified::assertion());
        }
        if self.pinned.iter().any(|pinned| pinned == end) {
            verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(end, between, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        assert_eq!(certificates(b"").unwrap_err(), BadPem::NoCertificate);
        assert_eq!(certificates(b"-----BEGIN X").unwrap_err(), BadPem::NoCertificate);
        let rubbish = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(certificates(rubbish).unwrap_err(), BadPem::Certificate(_)));
    }

    #[test]
    fn a_key_that_is_another_certificates_is_refused() {
        let make = || rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let (one, other) = (make(), make());
        let pair = |cert: &str, key: &str| identity(cert.as_bytes(), key.as_bytes()).map(drop);
        let key = one.signing_key.serialize_pem();
        assert_eq!(pair(&one.cert.pem(), &key), Ok(()));
        assert!(matches!(pair(&other.cert.pem(), &key), Err(BadPem::Key(_))));
        assert_eq!(pair(&one.cert.pem(), "none"), Err(BadPem::NoKey));
    }
}
