//! What one endpoint did wrong, once. Only the client sees a fault; callers see an `Error` made of
//! all of them. Text that a server sent is in here as it came, so a fault is scrubbed of secrets
//! before it becomes part of an error (`Peer::attempt`).

use std::{error::Error as StdError, io, time::Duration};

use hyper::StatusCode;
use names::Class;

use crate::place::Origin;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no {what} within {after:?}")]
    Slow { what: &'static str, after: Duration },
    #[error("{status}{said}")]
    Status { status: StatusCode, said: String, retry_after: Option<Duration> },
    #[error("{0}")]
    Denied(String),
    #[error("more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("its bytes have the digest {got}")]
    Digest { got: String },
    #[error("{got} bytes come where {wanted} are due")]
    Length { got: u64, wanted: u64 },
    #[error(
        "a manifest of Docker's schema 1, which is too old; push the image again with a current tool"
    )]
    OldSchema,
    #[error("against the protocol: {0}")]
    Protocol(String),
}

impl Fault {
    /// What the HTTP client reports, told apart by its cause.
    pub(crate) fn of(error: &(dyn StdError + 'static), connecting: bool) -> Fault {
        let causes = causes(error);
        let found =
            |cause: &&(dyn StdError + 'static)| cause.downcast_ref::<rustls::Error>().cloned();
        if let Some(tls) = causes.iter().find_map(found) {
            return Fault::Tls(explain(&tls));
        }
        let text = describe(&causes);
        if connecting { Fault::Connect(text) } else { Fault::Broken(text) }
    }

    /// The same, with the name of the host if it is not the one that was asked first.
    pub(crate) fn at(self, origin: Option<&Origin>) -> Fault {
        let Some(origin) = origin else { return self };
        let named = |text: String| format!("{origin}, where it redirects to: {text}");
        match self {
            Fault::Connect(text) => Fault::Connect(named(text)),
            Fault::Tls(text) => Fault::Tls(named(text)),
            Fault::Broken(text) => Fault::Broken(named(text)),
            other => other,
        }
    }

    /// Whether the same request may fare better in a moment.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Fault::Connect(_) | Fault::Broken(_) | Fault::Slow { .. } => true,
            Fault::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(status.as_u16(), 408 | 425 | 429)
            }
            _ => false,
        }
    }

    /// Whether it looks like TLS spoken to, or by, one who does not: a reason to try `https` where
    /// `http` was only a guess. Go's server answers 400, others hang up.
    pub(crate) fn is_garbled(&self) -> bool {
        match self {
            Fault::Broken(_) => true,
            Fault::Status { status, .. } => *status == StatusCode::BAD_REQUEST,
            _ => false,
        }
    }

    /// Whether asking that endpoint costs a timeout, and is likely to again.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Fault::Connect(_) | Fault::Slow { .. })
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Fault::Status { status, .. } if *status == StatusCode::NOT_FOUND => Class::NotFound,
            Fault::Status { .. } if !self.may_pass() => Class::Internal,
            Fault::Connect(_) | Fault::Tls(_) | Fault::Broken(_) | Fault::Status { .. } => {
                Class::Unavailable
            }
            Fault::Slow { .. } => Class::DeadlineExceeded,
            Fault::Denied(_) => Class::PermissionDenied,
            Fault::TooLarge { .. } => Class::ResourceExhausted,
            Fault::Digest { .. } | Fault::Length { .. } => Class::DataLoss,
            Fault::OldSchema => Class::Unimplemented,
            Fault::Protocol(_) => Class::Internal,
        }
    }
}

/// The error and all that lies beneath. An `io::Error` hides its own content from `source`.
pub(crate) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut all = vec![error];
    let mut current = error;
    loop {
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let next =
            inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| current.source());
        let Some(cause) = next else { return all };
        all.push(cause);
        current = cause;
    }
}

/// The innermost cause is the one that says something; the layers above say "client error".
fn describe(causes: &[&(dyn StdError + 'static)]) -> String {
    causes.last().map(ToString::to_string).unwrap_or_default()
}

fn explain(error: &rustls::Error) -> String {
    use rustls::{
        CertificateError::{BadSignature, UnknownIssuer},
        Error::InvalidCertificate,
    };
    match error {
        InvalidCertificate(UnknownIssuer | BadSignature) => {
            "its certificate is signed by no CA that is trusted here; name the CA's file as `ca` in hosts.toml"
                .to_owned()
        }
        other => other.to_string(),
    }
}
