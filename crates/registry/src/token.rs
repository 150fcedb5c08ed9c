//! Answering a challenge: Basic as it is, Bearer by way of the token server that the registry names
//! (distribution's `docs/spec/auth`). Authorisations are kept, in memory only, until they expire.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use tokio::time::{Duration, Instant};

use crate::{
    auth::Auth,
    body::Body,
    challenge::Challenge,
    fault::Fault,
    peer::{Answer, Asked, Peer},
    place::{Origin, encode},
};

/// Of a token server's answer, in bytes.
const LARGEST_ANSWER: u64 = 1024 * 1024;
/// A token that does not say is good for this long, by the specification.
const USUAL_LIFE: Duration = Duration::from_secs(60);
/// However long it says: an authorisation is asked for again after this.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);
/// Authorisations kept at a time.
const MOST_KEPT: usize = 512;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: Origin,
    scope: String,
    who: [u8; 32],
}

/// Authorisations by origin, scope and credentials.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Key, (HeaderValue, Instant)>>);

impl Tokens {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Key, (HeaderValue, Instant)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, key: &Key) -> Option<HeaderValue> {
        let now = Instant::now();
        self.with(|all| {
            all.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value.clone())
        })
    }

    fn put(&self, key: Key, value: HeaderValue, life: Duration) {
        let now = Instant::now();
        self.with(|all| {
            if all.len() >= MOST_KEPT {
                all.retain(|_, (_, until)| *until > now);
            }
            if all.len() >= MOST_KEPT {
                all.clear();
            }
            all.insert(key, (value, now + life));
        });
    }
}

impl Peer {
    fn key(&self) -> Key {
        let who = self.auth.as_ref().map(Auth::fingerprint).unwrap_or_default();
        Key { origin: self.endpoint.origin.clone(), scope: self.scope(), who }
    }

    fn scope(&self) -> String {
        format!("repository:{}:pull", self.repository)
    }

    /// What worked the last time, or what needs no asking.
    pub(crate) fn known_authorization(&self) -> Option<HeaderValue> {
        let token = self.auth.as_ref().map(|auth| auth.registry_token.as_str()).unwrap_or_default();
        let known = match token {
            "" => self.shared.tokens.get(&self.key()),
            token => sensitive(&format!("Bearer {token}")),
        };
        // Only what is sent can come back in an answer.
        let text = known.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some((_, secret)) = text.split_once(' ') {
            self.keep_secret(secret);
        }
        known
    }

    /// The value of `Authorization` that answers one of the challenges.
    pub(crate) async fn authorise(&self, challenges: &[Challenge]) -> Result<HeaderValue, Fault> {
        if self.auth.as_ref().is_some_and(|auth| !auth.registry_token.is_empty()) {
            return Err(Fault::Denied("it does not accept the registry token".to_owned()));
        }
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        match (of("bearer"), of("basic")) {
            (Some(bearer), _) => self.bearer(bearer).await,
            (None, Some(_)) => self.basic(),
            (None, None) => Err(Fault::Denied(
                "401, and no way to be authorised that is known: neither Basic nor Bearer"
                    .to_owned(),
            )),
        }
    }

    fn basic(&self) -> Result<HeaderValue, Fault> {
        let basic = self.auth.as_ref().and_then(Auth::basic);
        let why =
            || Fault::Denied(format!("401, and there is no user and password{}", self.hint()));
        let value = sensitive(&basic.ok_or_else(why)?).expect("base64 can be in a header");
        self.shared.tokens.put(self.key(), value.clone(), LONGEST_LIFE);
        Ok(value)
    }

    async fn bearer(&self, challenge: &Challenge) -> Result<HeaderValue, Fault> {
        let realm = self.realm(challenge)?;
        let mut fields = Vec::new();
        if let Some(service) = challenge.param("service") {
            fields.push(("service", service.to_owned()));
        }
        let scope = challenge.param("scope").map(str::to_owned);
        fields.push(("scope", scope.unwrap_or_else(|| self.scope())));
        let identity = self.auth.as_ref().map(|auth| auth.identity_token.as_str());
        let answer = match identity.filter(|token| !token.is_empty()) {
            Some(token) => self.exchange_identity(&realm, fields, token).await?,
            None => self.ask_for_token(&realm, &fields).await?,
        };
        let (token, life) = self.read_token(answer).await?;
        self.keep_secret(&token);
        let value = sensitive(&format!("Bearer {token}"));
        let value = value.ok_or_else(|| odd("its token server's token fits no header"))?;
        self.shared.tokens.put(self.key(), value.clone(), life);
        Ok(value)
    }

    /// The token server. It gets the credentials, so it must be as safe from eavesdroppers as the
    /// registry, which may name any host over `https` but only itself over `http`.
    fn realm(&self, challenge: &Challenge) -> Result<Uri, Fault> {
        let text = challenge.param("realm").ok_or_else(|| odd("it names no token server"))?;
        let realm = text.parse::<Uri>().ok().filter(|_| !text.contains('#'));
        let realm = realm.ok_or_else(|| odd("its token server is no URL"))?;
        let origin = Origin::of(&realm).ok_or_else(|| odd("its token server is no URL"))?;
        let home = &self.endpoint.origin;
        let own_http = !home.is_https() && origin.host() == home.host();
        if origin.is_https() || own_http {
            return Ok(realm);
        }
        Err(Fault::Denied(format!(
            "its token server {origin} is of plain http, which is not trusted"
        )))
    }

    async fn ask_for_token(
        &self,
        realm: &Uri,
        fields: &[(&str, String)],
    ) -> Result<Response<Incoming>, Fault> {
        let joint = if realm.query().is_some() { "&" } else { "?" };
        let url = format!("{realm}{joint}{}", form(fields)).parse();
        let url: Uri = url.map_err(|_| odd("its token server's URL is too long"))?;
        let home = Origin::of(realm).ok_or_else(|| odd("its token server is no URL"))?;
        let basic = self.auth.as_ref().and_then(Auth::basic).and_then(|basic| sensitive(&basic));
        let asked = Asked { method: Method::GET, path: String::new(), headers: HeaderMap::new() };
        let answer = self.walk(url, &asked, basic.as_ref(), &home).await?;
        self.granted(answer).await
    }

    /// OAuth2's `refresh_token`. A redirect is not followed: the secret is in the body.
    async fn exchange_identity(
        &self,
        realm: &Uri,
        mut fields: Vec<(&str, String)>,
        token: &str,
    ) -> Result<Response<Incoming>, Fault> {
        fields.push(("grant_type", "refresh_token".to_owned()));
        fields.push(("client_id", "podbay".to_owned()));
        fields.push(("refresh_token", token.to_owned()));
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        let request = Request::post(realm.clone());
        let response = self.send(request, headers, form(&fields).into()).await?;
        self.granted(Answer::direct(response)).await
    }

    /// A token server's refusal is about us, whatever its status; only what may pass is not.
    async fn granted(&self, answer: Answer) -> Result<Response<Incoming>, Fault> {
        if answer.response.status() == StatusCode::OK {
            return Ok(answer.response);
        }
        let fault = self.complaint(answer).await;
        if fault.may_pass() {
            return Err(fault);
        }
        Err(Fault::Denied(format!("its token server answers {fault}{}", self.hint())))
    }

    async fn read_token(&self, response: Response<Incoming>) -> Result<(String, Duration), Fault> {
        let body = Body::new(response, &self.shared.config).whole(LARGEST_ANSWER).await?;
        // What is wrong with it is not said: it would quote the token.
        let answer = serde_json::from_slice::<Granted>(&body);
        let answer = answer.map_err(|_| odd("its token server's answer is not JSON"))?;
        let token = [answer.token, answer.access_token].into_iter().flatten();
        let token = token.into_iter().find(|token| !token.is_empty());
        let token = token.ok_or_else(|| odd("its token server's answer has no token"))?;
        Ok((token, life(answer.expires_in.as_ref().and_then(serde_json::Value::as_u64))))
    }
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

/// A little less than the server says, for the time that requests are under way.
fn life(seconds: Option<u64>) -> Duration {
    let said = seconds.map_or(USUAL_LIFE, Duration::from_secs).min(LONGEST_LIFE);
    said.saturating_sub(Duration::from_secs(5).max(said / 10))
}

fn form(fields: &[(&str, String)]) -> String {
    let pairs: Vec<_> = fields.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
    pairs.join("&")
}

/// A header that no `Debug` shows.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn odd(why: &'static str) -> Fault {
    Fault::Protocol(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_a_little_shorter_than_it_lives() {
        assert_eq!(life(Some(300)), Duration::from_secs(270));
        assert_eq!(life(None), Duration::from_secs(54));
        assert_eq!(life(Some(3)), Duration::ZERO);
        assert_eq!(life(Some(u64::MAX)), LONGEST_LIFE - LONGEST_LIFE / 10);
    }

    #[test]
    fn a_form_keeps_its_values_apart() {
        let fields = [("a", "x&y=z".to_owned()), ("b", "1 2".to_owned())];
        assert_eq!(form(&fields), "a=x%26y%3Dz&b=1%202");
    }
}
