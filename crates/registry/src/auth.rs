//! Credentials, whom they are for, and keeping them out of what people read.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use crate::{
    endpoint::{Endpoint, Role},
    place::{Origin, encode},
};

/// What a CRI `AuthConfig` says. Empty text is the same as none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// Exchanged for an access token at the registry's token endpoint (OAuth2).
    pub identity_token: String,
    /// Sent as it is.
    pub registry_token: String,
    /// The server that the rest is for, as a host or a URL. Empty: the image's own registry.
    pub server_address: String,
}

impl fmt::Debug for Auth {
    /// Says which fields there are, and nothing in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("username", &self.username),
            ("password", &self.password),
            ("identity_token", &self.identity_token),
            ("registry_token", &self.registry_token),
            ("server_address", &self.server_address),
        ];
        let present = fields.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| *name);
        f.write_str("Auth(")?;
        present.enumerate().try_for_each(|(at, name)| {
            f.write_str(if at == 0 { "" } else { ", " })?;
            f.write_str(name)
        })?;
        f.write_str(")")
    }
}

impl Auth {
    /// User and password out of the `auth` of a Docker configuration or of CRI: their base64, with
    /// a colon between. None if it is not that.
    pub fn from_base64(auth: &str) -> Option<Auth> {
        let text = String::from_utf8(BASE64_STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        let password = password.trim_end_matches('\0');
        Some(Auth { username: username.into(), password: password.into(), ..Auth::default() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.username.is_empty()
            && self.password.is_empty()
            && self.identity_token.is_empty()
            && self.registry_token.is_empty()
    }

    /// The value of `Authorization` for Basic, if there is a user.
    pub(crate) fn basic(&self) -> Option<String> {
        let pair = format!("{}:{}", self.username, self.password);
        (!self.username.is_empty()).then(|| format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }

    /// Tells credentials apart in the cache of tokens without being them.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.username, &self.password, &self.identity_token, &self.registry_token] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    /// Whether an endpoint may see them. Without a server address they are for the registry of the
    /// image: its own server, or a mirror on the very same host. With one they are for that host,
    /// or for the registry's own server if it is the registry that is named. A mirror gets nothing
    /// merely for being a mirror (CVE-2020-15157 is what comes of generosity).
    pub(crate) fn is_for(&self, endpoint: &Endpoint, registry: &str) -> bool {
        let own = canonical(registry);
        let host = canonical(&endpoint.origin.authority());
        match canonical(&self.server_address).as_str() {
            "" => endpoint.role == Role::Own || host == own,
            address => address == host || address == own && endpoint.role == Role::Own,
        }
    }

    /// Every text that gives some of it away, as it may be sent and so come back.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let plain = [&self.password, &self.identity_token, &self.registry_token];
        let mut secrets: Vec<_> = plain.into_iter().cloned().collect();
        secrets.extend(plain.into_iter().map(|secret| encode(secret)));
        secrets.extend(self.basic().map(|basic| basic.trim_start_matches("Basic ").to_owned()));
        secrets
    }
}

/// A server's name out of the many ways to write it: without scheme, path and usual port, and with
/// Docker Hub's hosts as the one registry that they are.
fn canonical(address: &str) -> String {
    let (https, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (!scheme.eq_ignore_ascii_case("http"), rest),
        None => (true, address),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (authority, None),
    };
    match Origin::new(https, host, port).authority().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Shorter ones are left alone: they would be found everywhere, and the gap would tell of them.
const SHORTEST_SECRET: usize = 6;
/// What a server says may be long; what is shown of it is not.
const LONGEST_TEXT: usize = 512;

/// The text without the secrets, without control characters, and without the parts of URLs that may
/// carry a signature or a password. A peer can have put anything into it.
pub(crate) fn scrub(text: &str, secrets: &[String]) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut secrets: Vec<_> = secrets.iter().filter(|s| s.len() >= SHORTEST_SECRET).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets {
        clean = without(&clean, secret);
    }
    let words: Vec<_> = clean.split(' ').map(shorten_url).collect();
    let clean = words.join(" ");
    match clean.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// Without regard to case, as host names lose theirs.
fn without(text: &str, secret: &str) -> String {
    let (lower, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find(&secret) {
        clean.push_str(&text[at..at + found]);
        clean.push_str("[secret]");
        at += found + secret.len();
    }
    clean + &text[at..]
}

/// A URL is cut after its host.
fn shorten_url(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#', '"', '\'', ')', ',', ';']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", if tail.is_empty() { "" } else { "/…" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn auth(server_address: &str) -> Auth {
        Auth { username: "u".into(), server_address: server_address.into(), ..Auth::default() }
    }

    fn allowed(server_address: &str, url: &str, role: Role, registry: &str) -> bool {
        let endpoint = Endpoint::plain(Origin::of(&url.parse().unwrap()).unwrap(), role);
        auth(server_address).is_for(&endpoint, registry)
    }

    #[test]
    fn credentials_without_an_address_are_for_the_registry_itself() {
        assert!(allowed("", "https://registry-1.docker.io", Role::Own, "docker.io"));
        assert!(allowed("", "https://elsewhere.io", Role::Own, "r.io"));
        assert!(allowed("", "http://r.io:5000", Role::Mirror, "r.io:5000"));
        assert!(!allowed("", "https://mirror.io", Role::Mirror, "r.io"));
        assert!(!allowed("", "https://r.io:444", Role::Mirror, "r.io"));
    }

    #[test]
    fn credentials_with_an_address_are_for_that_server_alone() {
        assert!(allowed("https://mirror.io/v1/", "https://mirror.io", Role::Mirror, "r.io"));
        assert!(!allowed("mirror.io", "https://r.io", Role::Own, "r.io"));
        assert!(!allowed("r.io", "https://mirror.io", Role::Mirror, "r.io"));
        let hub = "https://registry-1.docker.io";
        assert!(allowed("https://index.docker.io/v1/", hub, Role::Own, "docker.io"));
        assert!(!allowed("https://evil.io", hub, Role::Own, "docker.io"));
        assert!(allowed("r.io", "https://elsewhere.io", Role::Own, "r.io"));
    }

    #[test]
    fn a_docker_auth_text_is_user_and_password() {
        let auth = Auth::from_base64(" dXNlcjpwYTpzcw== ").unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("user", "pa:ss"));
        assert_eq!(Auth::from_base64("dXNlcg=="), None);
        assert_eq!(Auth::from_base64("%"), None);
    }

    #[test]
    fn a_url_is_shown_without_what_it_may_carry() {
        let text = "see https://u:p@s3.io/bucket/x?X-Sig=abc, or http://a.io";
        assert_eq!(scrub(text, &[]), "see https://s3.io/… or http://a.io");
    }

    proptest! {
        #[test]
        fn no_debug_output_holds_a_field(a in "[a-zA-Z0-9]{14,20}", b in "[a-zA-Z0-9]{14,20}") {
            let auth = Auth {
                username: a.clone(), password: b.clone(), identity_token: a.clone(),
                registry_token: b.clone(), server_address: a.clone(),
            };
            let shown = format!("{auth:?} {auth:#?}");
            prop_assert!(!shown.contains(&a) && !shown.contains(&b), "{}", shown);
        }

        #[test]
        fn a_secret_is_cut_out_wherever_it_stands(
            before in "\\PC{0,20}", secret in "[!-~]{8,30}", after in "\\PC{0,20}", twice in any::<bool>()
        ) {
            let mut text = format!("{before}{secret}{after}");
            if twice { text = format!("{text}{}", secret.to_ascii_uppercase()); }
            let clean = scrub(&text, std::slice::from_ref(&secret)).to_ascii_lowercase();
            // A mark can complete a secret that looks like one; nothing random does.
            prop_assert!(!clean.contains(&secret.to_ascii_lowercase()), "{}", clean);
        }

        #[test]
        fn scrubbing_never_panics(text in "\\PC{0,60}", secret in "\\PC{0,10}") {
            scrub(&text, &[secret]);
        }

        #[test]
        fn an_address_never_panics(text in "\\PC{0,40}") {
            canonical(&text);
        }
    }
}
