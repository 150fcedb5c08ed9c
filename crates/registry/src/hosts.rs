//! `hosts.toml`, as containerd documents it (`docs/hosts.md`): which servers stand in for a
//! registry, in which order. This file only reads the text; no path in it is opened here.
//!
//! A key that is not known is warned of, since a newer containerd may know it. A known key with a
//! wrong value is an error: a mirror that is silently left out is found out on a bad day.

use std::{ops::Range, path::PathBuf, time::Duration};

use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::place::Origin;

/// A `hosts.toml` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadHosts {
    /// From 1.
    pub line: usize,
    pub why: String,
}

/// Something in a `hosts.toml` has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// From 1.
    pub line: usize,
    pub why: String,
}

/// A whole file.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Asked after all mirrors. Without a URL it is where the registry's name leads.
    pub server: Host,
    /// In the order of the file. Each has a URL.
    pub mirrors: Vec<Host>,
    pub warnings: Vec<Warning>,
}

/// One server, and how to speak to it. Paths are as written, so they may be relative to the file.
#[derive(Clone, Debug)]
pub struct Host {
    /// `http` or `https`, without user, query or fragment.
    pub url: Option<Uri>,
    /// Whether it may answer by digest, and by tag.
    pub pull: bool,
    pub resolve: bool,
    /// PEM files of certificates to trust besides the host's own.
    pub ca: Vec<PathBuf>,
    /// PEM files of certificate and key; without the second, both are in the first.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate will do.
    pub skip_verify: bool,
    /// Sent with each request to this host and to no other. Marked sensitive, so not in `Debug`.
    pub headers: HeaderMap,
    /// Whether the URL's path is the whole root of the API, so that `/v2` is not added.
    pub override_path: bool,
    pub dial_timeout: Option<Duration>,
    /// `http`; instead of what the environment says.
    pub proxy: Option<Uri>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            url: None,
            pull: true,
            resolve: true,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: HeaderMap::new(),
            override_path: false,
            dial_timeout: None,
            proxy: None,
        }
    }
}

/// Reads a `hosts.toml`.
pub fn parse_hosts(text: &str) -> Result<Hosts, BadHosts> {
    let reader = Reader { text };
    let root = DeTable::parse(text).map_err(|error| BadHosts {
        line: reader.line(&error.span().unwrap_or_default()),
        why: error.message().to_owned(),
    })?;
    let mut hosts = Hosts::default();
    for (key, value) in in_order(root.get_ref()) {
        match key.get_ref().as_ref() {
            "server" => hosts.server.url = Some(reader.url(value, "server")?),
            "host" => reader.mirrors(value, &mut hosts)?,
            name => reader.field(name, value, &mut hosts.server, &mut hosts.warnings)?,
        }
    }
    Ok(hosts)
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

/// A table's entries as the file has them; the parser sorts by name, and here the order matters.
fn in_order<'t, 'a>(table: &'t DeTable<'a>) -> Vec<(&'t Key<'a>, &'t Value<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn bad(&self, value: &Value<'_>, why: impl Into<String>) -> BadHosts {
        BadHosts { line: self.line(&value.span()), why: why.into() }
    }

    fn mirrors(&self, value: &Value<'_>, hosts: &mut Hosts) -> Result<(), BadHosts> {
        for (name, value) in in_order(self.table(value, "host")?) {
            let url = self.as_url(name.get_ref(), "host").map_err(|why| self.bad(value, why))?;
            let mut host = Host { url: Some(url), ..Host::default() };
            for (key, value) in in_order(self.table(value, "host")?) {
                self.field(key.get_ref(), value, &mut host, &mut hosts.warnings)?;
            }
            hosts.mirrors.push(host);
        }
        Ok(())
    }

    fn field(
        &self,
        name: &str,
        value: &Value<'_>,
        host: &mut Host,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), BadHosts> {
        match name {
            "capabilities" => self.capabilities(value, host)?,
            "ca" => host.ca = self.strings(value, name)?.into_iter().map(PathBuf::from).collect(),
            "client" => host.client = self.client(value)?,
            "skip_verify" => host.skip_verify = self.boolean(value, name)?,
            "header" => host.headers = self.headers(value)?,
            "override_path" => host.override_path = self.boolean(value, name)?,
            "dial_timeout" => host.dial_timeout = self.duration(value, name)?,
            "proxy" => host.proxy = Some(self.proxy(value)?),
            other => warnings.push(Warning {
                line: self.line(&value.span()),
                why: format!("the key {other:?} is not known and has no effect"),
            }),
        }
        Ok(())
    }

    /// None listed means all, as in containerd.
    fn capabilities(&self, value: &Value<'_>, host: &mut Host) -> Result<(), BadHosts> {
        let listed = self.strings(value, "capabilities")?;
        let has = |wanted: &str| listed.iter().any(|found| found.eq_ignore_ascii_case(wanted));
        let known = ["pull", "resolve", "push"];
        if let Some(odd) = listed.iter().find(|c| !known.iter().any(|k| k.eq_ignore_ascii_case(c)))
        {
            return Err(self.bad(value, format!("{odd:?} is no capability: pull, resolve or push")));
        }
        host.pull = listed.is_empty() || has("pull");
        host.resolve = listed.is_empty() || has("resolve");
        Ok(())
    }

    /// A file, a list of files, or a list of pairs of files; an empty key is in the certificate's.
    fn client(&self, value: &Value<'_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, BadHosts> {
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        let mut pairs = Vec::new();
        for item in items {
            let paths = self.strings(item, "client")?;
            let (cert, key) = match (item.get_ref(), paths.as_slice()) {
                (DeValue::String(_), [cert]) => (cert, None),
                (DeValue::Array(_), [cert, key]) => (cert, Some(key).filter(|key| !key.is_empty())),
                _ => return Err(self.bad(item, "a pair in `client` is [\"certificate\", \"key\"]")),
            };
            pairs.push((PathBuf::from(cert), key.map(PathBuf::from)));
        }
        Ok(pairs)
    }

    fn headers(&self, value: &Value<'_>) -> Result<HeaderMap, BadHosts> {
        let mut headers = HeaderMap::new();
        for (key, value) in in_order(self.table(value, "header")?) {
            let name = HeaderName::from_bytes(key.get_ref().as_bytes())
                .map_err(|_| self.bad(value, format!("{:?} is no header name", key.get_ref())))?;
            for text in self.strings(value, "header")? {
                let mut content = HeaderValue::from_str(&text)
                    .map_err(|_| self.bad(value, format!("the value of {name} is no header's")))?;
                content.set_sensitive(true);
                let fits = headers.try_append(name.clone(), content);
                fits.map_err(|_| self.bad(value, "there are too many headers"))?;
            }
        }
        Ok(headers)
    }

    fn proxy(&self, value: &Value<'_>) -> Result<Uri, BadHosts> {
        let text = self.string(value, "proxy")?;
        let uri = text.parse::<Uri>().ok();
        let plain = |uri: &Uri| {
            Origin::of(uri).is_some_and(|origin| !origin.is_https())
                && matches!(uri.path(), "" | "/")
        };
        uri.filter(plain).ok_or_else(|| self.bad(value, "`proxy` must be http://HOST[:PORT]"))
    }

    fn url(&self, value: &Value<'_>, name: &str) -> Result<Uri, BadHosts> {
        self.as_url(self.string(value, name)?, name).map_err(|why| self.bad(value, why))
    }

    /// A bare host means `https`, as in containerd.
    fn as_url(&self, text: &str, name: &str) -> Result<Uri, String> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri = whole.parse::<Uri>().ok().filter(|uri| Origin::of(uri).is_some());
        let plain = |uri: &Uri| uri.query().is_none() && !uri.path().split('/').any(|p| p == "..");
        uri.filter(plain).filter(|_| !text.contains('#')).ok_or_else(|| {
            format!("`{name}` must be http[s]://HOST[:PORT][/PATH], without user or query")
        })
    }

    fn duration(&self, value: &Value<'_>, name: &str) -> Result<Option<Duration>, BadHosts> {
        let text = self.string(value, name)?;
        if text.is_empty() {
            return Ok(None);
        }
        let duration = go_duration(text).filter(|duration| !duration.is_zero());
        let why =
            || self.bad(value, format!("`{name}` must be a time such as \"1s\" or \"500ms\""));
        duration.map(Some).ok_or_else(why)
    }

    fn table<'t, 'a>(&self, value: &'t Value<'a>, name: &str) -> Result<&'t DeTable<'a>, BadHosts> {
        let table = value.get_ref().as_table();
        table.ok_or_else(|| self.bad(value, format!("`{name}` must be a table")))
    }

    fn boolean(&self, value: &Value<'_>, name: &str) -> Result<bool, BadHosts> {
        let boolean = value.get_ref().as_bool();
        boolean.ok_or_else(|| self.bad(value, format!("`{name}` must be true or false")))
    }

    fn string<'t>(&self, value: &'t Value<'_>, name: &str) -> Result<&'t str, BadHosts> {
        let text = value.get_ref().as_str();
        text.ok_or_else(|| self.bad(value, format!("`{name}` must be a text")))
    }

    /// One text, or a list of them.
    fn strings(&self, value: &Value<'_>, name: &str) -> Result<Vec<String>, BadHosts> {
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        items.into_iter().map(|item| self.string(item, name).map(str::to_owned)).collect()
    }
}

/// A duration as Go writes it: `1m30s`, `1.5s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let seconds = number.parse::<f64>().ok()? * unit_seconds(unit.get(..end)?)?;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = unit.get(end..)?;
    }
    Some(total).filter(|_| !text.is_empty())
}

fn unit_seconds(unit: &str) -> Option<f64> {
    match unit {
        "h" => Some(3600.0),
        "m" => Some(60.0),
        "s" => Some(1.0),
        "ms" => Some(1e-3),
        "us" | "µs" => Some(1e-6),
        "ns" => Some(1e-9),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urls(hosts: &Hosts) -> Vec<String> {
        hosts.mirrors.iter().filter_map(|host| host.url.as_ref()).map(Uri::to_string).collect()
    }

    #[test]
    fn mirrors_keep_the_order_of_the_file() {
        let hosts = parse_hosts(
            r#"
            server = "https://registry-1.docker.io"
            [host."https://zebra.io"]
              capabilities = ["pull"]
            [host."http://apple.io:5000/cache"]
              capabilities = ["Pull", "resolve", "push"]
            [host."mango.io"]
            "#,
        )
        .unwrap();
        let wanted = ["https://zebra.io/", "http://apple.io:5000/cache", "https://mango.io/"];
        assert_eq!(urls(&hosts), wanted);
        assert_eq!(hosts.server.url.unwrap().host(), Some("registry-1.docker.io"));
        let able: Vec<_> = hosts.mirrors.iter().map(|host| (host.pull, host.resolve)).collect();
        assert_eq!(able, [(true, false), (true, true), (true, true)]);
    }

    #[test]
    fn every_documented_key_is_read() {
        let hosts = parse_hosts(
            r#"
            ca = "/etc/ca.pem"
            [host."https://m.io/v2/mine"]
              ca = ["a.pem", "b.pem"]
              client = [["c.cert", "c.key"], ["d.pem", ""]]
              skip_verify = true
              override_path = true
              dial_timeout = "1m1.5s"
              proxy = "http://proxy:3128"
              [host."https://m.io/v2/mine".header]
                x-one = "1"
                x-two = ["2", "3"]
            "#,
        )
        .unwrap();
        assert_eq!(hosts.server.ca, [PathBuf::from("/etc/ca.pem")]);
        let mirror = &hosts.mirrors[0];
        assert_eq!(mirror.ca.len(), 2);
        assert_eq!(mirror.client[0], ("c.cert".into(), Some("c.key".into())));
        assert_eq!(mirror.client[1], ("d.pem".into(), None));
        assert!(mirror.skip_verify && mirror.override_path);
        assert_eq!(mirror.dial_timeout, Some(Duration::from_millis(61_500)));
        assert_eq!(mirror.proxy.as_ref().unwrap().port_u16(), Some(3128));
        assert_eq!(mirror.headers.get_all("x-two").iter().count(), 2);
        assert!(hosts.warnings.is_empty());
    }

    #[test]
    fn a_client_certificate_may_be_one_file_or_several() {
        let client = |text: &str| parse_hosts(&format!("client = {text}")).map(|h| h.server.client);
        assert_eq!(client("\"a.pem\"").unwrap(), [("a.pem".into(), None)]);
        assert_eq!(client("[\"a.pem\", \"b.pem\"]").unwrap().len(), 2);
        assert!(client("[[\"a\"]]").is_err());
        assert!(client("[[\"a\", \"b\", \"c\"]]").is_err());
        assert!(client("7").is_err());
    }

    #[test]
    fn an_unknown_key_is_a_warning_with_its_line() {
        let hosts = parse_hosts("server = \"https://a.io\"\nrewrite = 1\n").unwrap();
        assert_eq!(hosts.warnings[0].line, 2);
        assert!(hosts.warnings[0].why.contains("rewrite"));
    }

    #[test]
    fn a_wrong_value_is_an_error_with_its_line() {
        for (line, text) in [
            (1, "server = 1"),
            (2, "\nserver = \"ftp://a.io\""),
            (1, "server = \"https://u:p@a.io\""),
            (1, "server = \"https://a.io/?x=1\""),
            (3, "[host.\"https://a.io\"]\n\ncapabilities = [\"fly\"]"),
            (2, "[host.\"https://a.io\"]\nskip_verify = \"yes\""),
            (2, "[host.\"https://a.io\"]\ndial_timeout = \"soon\""),
            (2, "[host.\"https://a.io\"]\nproxy = \"socks5://a\""),
            (1, "host = 1"),
            (2, "[header]\n\"a b\" = \"x\""),
            (2, "[header]\na = \"x\\ny\""),
            (2, "x = 1\ny = = 2"),
        ] {
            assert_eq!(parse_hosts(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn the_value_of_a_header_is_not_in_debug_output() {
        let hosts = parse_hosts("[header]\nauthorization = \"Basic aHVzaA==\"").unwrap();
        assert!(!format!("{hosts:?}").contains("aHVzaA"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = parse_hosts(&text);
        }

        #[test]
        fn no_near_file_panics_and_every_mirror_has_a_url(
            text in "(server|ca|client|capabilities|header|dial_timeout|proxy|\\[host\\.\"[a-z:/.]{0,12}\"\\]|( = |\n)|\"[a-z:/.0-9]{0,12}\"|[\\[\\]=,]){0,20}"
        ) {
            if let Ok(hosts) = parse_hosts(&text) {
                prop_assert!(hosts.mirrors.iter().all(|host| host.url.is_some()));
            }
        }

        #[test]
        fn a_duration_is_read_as_it_was_meant(minutes in 0u64..99, millis in 0u64..99_999) {
            let wanted = Duration::from_secs(minutes * 60) + Duration::from_millis(millis);
            prop_assert_eq!(go_duration(&format!("{minutes}m{millis}ms")), Some(wanted));
        }
    }
}
