//! One endpoint, asked for one repository with the credentials that are for it: redirects, the
//! challenge of a 401, and what its answers mean.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
        WWW_AUTHENTICATE,
    },
};
use serde::Deserialize;
use tokio::time::{Duration, timeout};

use crate::{
    auth::{Auth, scrub},
    body::Body,
    challenge::{Challenge, parse_challenge},
    client::Shared,
    endpoint::Endpoint,
    error::Attempt,
    fault::Fault,
    http::Http,
    patience::Patience,
    place::{self, Origin},
};

/// As browsers and Go's client, more or less.
const MOST_REDIRECTS: usize = 10;
/// Of an error's body, in bytes.
const LARGEST_COMPLAINT: u64 = 64 * 1024;

pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Endpoint,
    /// Only if they are for this endpoint.
    pub(crate) auth: Option<Auth>,
    /// Whether there are credentials that are not for this endpoint.
    pub(crate) withheld: bool,
    pub(crate) repository: String,
    /// To this endpoint's host: with its client certificate, and its certificate unverified if the
    /// operator says so.
    pub(crate) near: Http,
    /// To any other host: without either.
    pub(crate) far: Http,
    /// What must not be shown.
    pub(crate) secrets: Mutex<Vec<String>>,
}

/// What is asked for, in a repository.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// `manifests/latest`.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// An answer, and who gave it if not the server that was asked.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    elsewhere: Option<Origin>,
}

impl Peer {
    /// What it answers, after as many tries as it may have. The answer is a success.
    pub(crate) async fn get(&self, asked: &Asked) -> Result<Response<Incoming>, Fault> {
        let mut patience = Patience::new(&self.shared.config);
        loop {
            match self.once(asked).await {
                Ok(response) => return Ok(response),
                Err(fault) => patience.wait(fault).await?,
            }
        }
    }

    /// One try, and a second one with authorisation if that is what is missing.
    pub(crate) async fn once(&self, asked: &Asked) -> Result<Response<Incoming>, Fault> {
        let url = self.url(&asked.path)?;
        let home = &self.endpoint.origin;
        let known = self.known_authorization();
        let answer = self.walk(url.clone(), asked, known.as_ref(), home).await?;
        if !answer.wants_authorisation() {
            return self.judge(answer).await;
        }
        let challenges = answer.challenges();
        drop(answer);
        let authorization = self.authorise(&challenges).await?;
        self.judge(self.walk(url, asked, Some(&authorization), home).await?).await
    }

    fn url(&self, path: &str) -> Result<Uri, Fault> {
        let Endpoint { origin, root, namespace, .. } = &self.endpoint;
        let query = namespace.as_ref().map(|name| format!("?ns={}", place::encode(name)));
        let url = format!("{origin}{root}/{}/{path}{}", self.repository, query.unwrap_or_default());
        url.parse().map_err(|_| Fault::Protocol("its URL is too long".to_owned()))
    }

    /// From redirect to redirect. Headers of `hosts.toml` and `authorization` are for the
    /// origin `home`, and are not sent again once it was left.
    pub(crate) async fn walk(
        &self,
        mut url: Uri,
        asked: &Asked,
        authorization: Option<&HeaderValue>,
        home: &Origin,
    ) -> Result<Answer, Fault> {
        let mut elsewhere = None;
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = asked.headers.clone();
            if elsewhere.is_none() {
                self.confide(&mut headers, authorization, home);
            }
            let request = Request::builder().method(asked.method.clone()).uri(url.clone());
            let sent = self.send(request, headers, Bytes::new()).await;
            let response = sent.map_err(|fault| fault.at(elsewhere.as_ref()))?;
            let Some(location) = location(&response) else {
                return Ok(Answer { response, elsewhere });
            };
            url = place::follow(&url, location).map_err(|why| Fault::Protocol(why.to_owned()))?;
            elsewhere = Origin::of(&url).filter(|origin| elsewhere.is_some() || origin != home);
        }
        Err(Fault::Protocol(format!("it redirects more than {MOST_REDIRECTS} times")))
    }

    fn confide(&self, headers: &mut HeaderMap, auth: Option<&HeaderValue>, home: &Origin) {
        if *home == self.endpoint.origin {
            headers.extend(self.endpoint.headers.clone());
        }
        if let Some(authorization) = auth {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
    }

    pub(crate) async fn send(
        &self,
        request: hyper::http::request::Builder,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Fault> {
        headers.entry(USER_AGENT).or_insert(self.shared.user_agent.clone());
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let built = request.body(Full::new(body));
        let mut request = built.map_err(|_| Fault::Protocol("no URL to ask".to_owned()))?;
        *request.headers_mut() = headers;
        let host = request.uri().host().unwrap_or_default();
        let near = host.eq_ignore_ascii_case(self.endpoint.origin.host());
        if near { &self.near } else { &self.far }.exchange(request).await
    }

    async fn judge(&self, answer: Answer) -> Result<Response<Incoming>, Fault> {
        let status = answer.response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(answer.response);
        }
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let at_home = answer.elsewhere.is_none();
        let fault = self.complaint(answer).await;
        Err(if refused && at_home {
            Fault::Denied(format!("{fault}{}", self.hint()))
        } else {
            fault
        })
    }

    /// Why a refusal may be our own doing.
    pub(crate) fn hint(&self) -> &'static str {
        if self.withheld { " (the credentials given are not for this server)" } else { "" }
    }

    /// What a failure says about itself.
    pub(crate) async fn complaint(&self, answer: Answer) -> Fault {
        let status = answer.response.status();
        let retry_after = retry_after(&answer.response);
        let from = answer.elsewhere.map(|origin| format!(" from {origin}")).unwrap_or_default();
        let body = Body::new(answer.response, &self.shared.config).whole(LARGEST_COMPLAINT);
        let body = timeout(self.shared.config.header_timeout, body).await;
        let reasons = body.ok().and_then(Result::ok).map(|body| reasons(&body));
        Fault::Status { status, said: from + &reasons.unwrap_or_default(), retry_after }
    }

    /// The fault as others may read it.
    pub(crate) fn attempt(&self, fault: &Fault) -> Attempt {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let values = self.endpoint.headers.values().filter_map(|value| value.to_str().ok());
        secrets.extend(values.map(str::to_owned));
        Attempt {
            endpoint: self.endpoint.origin.to_string(),
            answer: scrub(&fault.to_string(), &secrets),
        }
    }

    pub(crate) fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret.to_owned());
    }
}

impl Answer {
    /// From the server that was asked.
    pub(crate) fn direct(response: Response<Incoming>) -> Answer {
        Answer { response, elsewhere: None }
    }

    /// A 401 from where a redirect led is none of ours.
    fn wants_authorisation(&self) -> bool {
        self.elsewhere.is_none() && self.response.status() == StatusCode::UNAUTHORIZED
    }

    fn challenges(&self) -> Vec<Challenge> {
        let values = self.response.headers().get_all(WWW_AUTHENTICATE).iter();
        values
            .flat_map(|value| parse_challenge(&String::from_utf8_lossy(value.as_bytes())))
            .collect()
    }
}

fn location(response: &Response<Incoming>) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(LOCATION).filter(|_| redirects)?.to_str().ok()
}

/// In seconds. The other form, a date, would need the peer's clock to be ours.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
struct Complaint {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The errors that a registry lists in its body, if they are in the form that the specification
/// has for them.
fn reasons(body: &[u8]) -> String {
    let Ok(complaint) = serde_json::from_slice::<Complaint>(body) else { return String::new() };
    let reasons = complaint.errors.iter().take(3).map(|r| format!(": {}: {}", r.code, r.message));
    reasons.collect()
}
