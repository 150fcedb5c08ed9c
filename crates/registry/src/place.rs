//! Where a URL leads: its origin, what a redirect makes of it, and text fit for a query. The only
//! part of a URL that is ever shown is its origin, since paths and queries carry signatures.

use std::fmt;

use hyper::{Uri, http::uri::Scheme};

/// Scheme, host and port: two URLs of one origin speak to one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    https: bool,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// None unless it is an `http` or `https` URL with a host and without user and password.
    pub(crate) fn of(uri: &Uri) -> Option<Origin> {
        let https = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        Some(Origin::new(https, authority.host(), authority.port_u16()))
    }

    pub(crate) fn new(https: bool, host: &str, port: Option<u16>) -> Origin {
        let usual = if https { 443 } else { 80 };
        let port = port.filter(|port| *port != usual);
        Origin { https, host: host.to_ascii_lowercase(), port }
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The host, with its port unless that is the scheme's own.
    pub(crate) fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

/// Whether a registry of this name is on this host, which is the only one where plain HTTP is
/// tried unasked.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Where a `Location` leads, seen from the URL that answered with it. Never from `https` to `http`.
pub(crate) fn follow(from: &Uri, location: &str) -> Result<Uri, &'static str> {
    let target: Uri = absolute(from, location).parse().map_err(|_| "it redirects to no URL")?;
    let origin = Origin::of(&target).ok_or("it redirects to what is neither http nor https")?;
    if from.scheme() == Some(&Scheme::HTTPS) && !origin.is_https() {
        return Err("it redirects from https to http");
    }
    Ok(target)
}

fn absolute(from: &Uri, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    match location {
        whole if whole.contains("://") && !whole.starts_with('/') => whole.to_owned(),
        host if host.starts_with("//") => format!("{scheme}:{host}"),
        rooted if rooted.starts_with('/') => format!("{scheme}://{authority}{rooted}"),
        "" => from.to_string(),
        query if query.starts_with('?') => {
            format!("{scheme}://{authority}{}{query}", from.path())
        }
        relative => format!("{scheme}://{authority}{folder}/{relative}"),
    }
}

/// Percent-encoded, so that it is one value of a query or of a form.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(base: &str, location: &str) -> Result<String, &'static str> {
        follow(&base.parse().unwrap(), location).map(|uri| uri.to_string())
    }

    #[test]
    fn a_location_is_read_as_a_browser_reads_it() {
        let base = "https://r.io:5000/v2/a/blobs/x?ns=b";
        assert_eq!(from(base, "https://s3/y?sig=1").unwrap(), "https://s3/y?sig=1");
        assert_eq!(from(base, "//cdn.io/y").unwrap(), "https://cdn.io/y");
        assert_eq!(from(base, "/y").unwrap(), "https://r.io:5000/y");
        assert_eq!(from(base, "y").unwrap(), "https://r.io:5000/v2/a/blobs/y");
        assert_eq!(from(base, "?z=1").unwrap(), "https://r.io:5000/v2/a/blobs/x?z=1");
    }

    #[test]
    fn a_location_leads_neither_down_to_http_nor_elsewhere() {
        for bad in ["http://r.io/y", "ftp://r.io/y", "https://u:p@r.io/y", "https://", "file:///x"]
        {
            assert!(from("https://r.io/x", bad).is_err(), "{bad}");
        }
        assert!(from("http://r.io/x", "http://s.io/y").is_ok());
        assert!(from("http://r.io/x", "https://s.io/y").is_ok());
    }

    #[test]
    fn one_origin_has_many_spellings() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("https://R.io/a"), origin("https://r.io:443/b"));
        assert_ne!(origin("https://r.io/a"), origin("http://r.io/a"));
        assert_ne!(origin("https://r.io/a"), origin("https://r.io:444/a"));
        assert_eq!(origin("http://[::1]:5000/x").unwrap().to_string(), "http://[::1]:5000");
    }

    #[test]
    fn only_this_host_is_loopback() {
        for yes in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["r.io", "128.0.0.1", "localhost.r.io", "[::2]", "127.0.0.1.r.io"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    proptest! {
        #[test]
        fn no_location_panics_or_leaves_https(location in "\\PC{0,60}") {
            if let Ok(target) = from("https://r.io/v2/", &location) {
                prop_assert!(target.starts_with("https://"));
            }
        }

        #[test]
        fn what_is_encoded_is_one_value(text in "\\PC{0,40}") {
            prop_assert!(encode(&text).bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        }
    }
}
