//! From a registry's name to the servers to ask, in order: `hosts.toml`, certificate files as
//! Docker lays them out, or what the name itself says. Read anew at each call, so that an edited
//! file counts from the next pull on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{HeaderMap, Uri};
use rustls::pki_types::CertificateDer;

use crate::{
    error::Error,
    hosts::{Host, Hosts, Warning, parse_hosts},
    place::{Origin, is_loopback},
    tls,
};

/// Why an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is the registry: where its name leads, or what its own `hosts.toml` calls its `server`.
    Own,
    /// It stands in for the registry. So does the `server` of a `_default/hosts.toml`, since it is
    /// written without a thought of this registry.
    Mirror,
}

/// One server to ask.
pub(crate) struct Endpoint {
    pub(crate) origin: Origin,
    /// `/v2`, or what stands for it; no slash at the end.
    pub(crate) root: String,
    pub(crate) role: Role,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    /// The registry's name, to be sent as `ns` to a server of another name.
    pub(crate) namespace: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) line: Line,
    /// Only a guess: asked if the endpoint before it answered as if it expected TLS.
    pub(crate) only_if_garbled: bool,
}

/// PEM of a certificate and of its key. They have been found to fit.
pub(crate) type ClientPem = Arc<(Vec<u8>, Vec<u8>)>;

/// What decides how connections are made. Equal lines can share connections.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) ca: Vec<CertificateDer<'static>>,
    pub(crate) client: Option<ClientPem>,
    pub(crate) skip_verify: bool,
    pub(crate) dial_timeout: Option<Duration>,
    pub(crate) proxy: Option<Uri>,
}

/// Where a configuration was found, and what it says.
pub(crate) struct Found {
    pub(crate) endpoints: Vec<Endpoint>,
    /// Each with its file.
    pub(crate) warnings: Vec<(PathBuf, Warning)>,
}

impl Endpoint {
    /// One that nothing is configured for.
    pub(crate) fn plain(origin: Origin, role: Role) -> Endpoint {
        Endpoint {
            origin,
            root: "/v2".to_owned(),
            role,
            pull: true,
            resolve: true,
            namespace: None,
            headers: HeaderMap::new(),
            line: Line::default(),
            only_if_garbled: false,
        }
    }
}

/// The endpoints of a registry. Blocks on files.
pub(crate) fn find(dirs: &[PathBuf], registry: &str) -> Result<Found, Error> {
    let Some((dir, own)) = folder(dirs, registry) else {
        return Ok(Found { endpoints: unconfigured(registry), warnings: Vec::new() });
    };
    let file = dir.join("hosts.toml");
    let hosts = match fs::read_to_string(&file) {
        Ok(text) if !text.is_empty() => parse_hosts(&text).map_err(|bad| Error::BadConfig {
            file: file.clone(),
            line: Some(bad.line),
            why: bad.why,
        })?,
        Ok(_) => docker_files(&dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => docker_files(&dir)?,
        Err(source) => return Err(Error::Unreadable { file, source }),
    };
    let warnings = hosts.warnings.iter().map(|w| (file.clone(), w.clone())).collect();
    let server_role = if own { Role::Own } else { Role::Mirror };
    let endpoints = Reading { dir: &dir, registry }.endpoints(&hosts, server_role)?;
    Ok(Found { endpoints, warnings })
}

/// The folder for a registry, and whether it is its own rather than `_default`.
fn folder(dirs: &[PathBuf], registry: &str) -> Option<(PathBuf, bool)> {
    let mut own = vec![registry.to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
        own.insert(0, format!("{host}_{port}_"));
    }
    let present = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_dir());
    let found = own.iter().find_map(|name| present(name)).map(|dir| (dir, true));
    found.or_else(|| present("_default").map(|dir| (dir, false)))
}

/// A folder without `hosts.toml` may hold `*.crt` (CAs) and `*.cert` with `*.key` (ourselves).
fn docker_files(dir: &Path) -> Result<Hosts, Error> {
    let unreadable = |source| Error::Unreadable { file: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        names.push(PathBuf::from(entry.map_err(unreadable)?.file_name()));
    }
    names.sort();
    let with = |wanted: &'static str| {
        names.iter().filter(move |name| name.extension().is_some_and(|ext| ext == wanted))
    };
    let ca = with("crt").cloned().collect();
    let client =
        with("cert").map(|cert| (cert.clone(), Some(cert.with_extension("key")))).collect();
    let server = Host { ca, client, ..Host::default() };
    Ok(Hosts { server, ..Hosts::default() })
}

/// Where a name leads when nobody says otherwise. On this host it is plain HTTP, and HTTPS with any
/// certificate if that is what answers, as containerd does it (in the other order).
fn unconfigured(registry: &str) -> Vec<Endpoint> {
    let (host, port) = split(registry);
    let own = |https, host: &str, port| Endpoint::plain(Origin::new(https, host, port), Role::Own);
    match (is_loopback(host), port) {
        _ if registry == "docker.io" => vec![own(true, "registry-1.docker.io", None)],
        (false, _) => vec![own(true, host, port)],
        (true, Some(80)) => vec![own(false, host, port)],
        (true, port) => {
            let mut tls = own(true, host, port);
            tls.line.skip_verify = true;
            if matches!(port, None | Some(443)) {
                return vec![tls];
            }
            tls.only_if_garbled = true;
            vec![own(false, host, port), tls]
        }
    }
}

fn split(registry: &str) -> (&str, Option<u16>) {
    let parts = registry.rsplit_once(':').map(|(host, port)| (host, port.parse().ok()));
    match parts {
        Some((host, Some(port))) if !host.ends_with(':') => (host, Some(port)),
        _ => (registry, None),
    }
}

struct Reading<'a> {
    dir: &'a Path,
    registry: &'a str,
}

impl Reading<'_> {
    fn endpoints(&self, hosts: &Hosts, server: Role) -> Result<Vec<Endpoint>, Error> {
        let mut endpoints = Vec::new();
        for mirror in &hosts.mirrors {
            let url = mirror.url.as_ref().expect("every mirror has a URL");
            endpoints.push(self.configured(mirror, url, Role::Mirror)?);
        }
        match &hosts.server.url {
            Some(url) => endpoints.push(self.configured(&hosts.server, url, server)?),
            None => endpoints.extend(self.unnamed(&hosts.server)?),
        }
        Ok(endpoints)
    }

    fn configured(&self, host: &Host, url: &Uri, role: Role) -> Result<Endpoint, Error> {
        let origin = Origin::of(url).expect("a host's URL is http or https");
        let path = url.path().trim_end_matches('/');
        let whole = host.override_path || path.ends_with("/v2");
        let root = if whole { path.to_owned() } else { format!("{path}/v2") };
        let (name, port) = split(self.registry);
        let named = Origin::new(origin.is_https(), name, port).authority();
        let authority = origin.authority();
        let same =
            authority == named || named == "docker.io" && authority == "registry-1.docker.io";
        let namespace = (!same).then(|| self.registry.to_owned());
        let plain = Endpoint { root, namespace, ..Endpoint::plain(origin, role) };
        self.with(plain, host, self.line(host)?)
    }

    /// What the name leads to, with what the file says about it: certificates, headers.
    fn unnamed(&self, host: &Host) -> Result<Vec<Endpoint>, Error> {
        let line = self.line(host)?;
        let endpoints = unconfigured(self.registry).into_iter().map(|endpoint| {
            let lax = endpoint.line.skip_verify && line.ca.is_empty();
            let line = Line { skip_verify: line.skip_verify || lax, ..line.clone() };
            self.with(endpoint, host, line)
        });
        endpoints.collect()
    }

    fn with(&self, plain: Endpoint, host: &Host, line: Line) -> Result<Endpoint, Error> {
        let headers = host.headers.clone();
        Ok(Endpoint { pull: host.pull, resolve: host.resolve, headers, line, ..plain })
    }

    fn line(&self, host: &Host) -> Result<Line, Error> {
        let mut ca = Vec::new();
        for path in &host.ca {
            let (file, pem) = self.read(path)?;
            ca.extend(tls::certificates(&pem).map_err(|bad| unusable(file, &bad))?);
        }
        Ok(Line {
            ca,
            client: self.client(host)?,
            skip_verify: host.skip_verify,
            dial_timeout: host.dial_timeout,
            proxy: host.proxy.clone(),
        })
    }

    /// A server asks for one certificate, and there is no telling which before it does, so the
    /// first is it.
    fn client(&self, host: &Host) -> Result<Option<ClientPem>, Error> {
        let Some((certificate, key)) = host.client.first() else { return Ok(None) };
        let (file, certificate) = self.read(certificate)?;
        let (key_file, key) = match key {
            Some(key) => self.read(key)?,
            None => (file.clone(), certificate.clone()),
        };
        tls::identity(&certificate, &key).map_err(|bad| match bad {
            tls::BadPem::NoKey | tls::BadPem::Key(_) => unusable(key_file, &bad),
            _ => unusable(file, &bad),
        })?;
        Ok(Some(Arc::new((certificate, key))))
    }

    fn read(&self, path: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
        let file = self.dir.join(path);
        match fs::read(&file) {
            Ok(content) => Ok((file, content)),
            Err(source) => Err(Error::Unreadable { file, source }),
        }
    }
}

fn unusable(file: PathBuf, bad: &tls::BadPem) -> Error {
    Error::BadConfig { file, line: None, why: bad.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn found(dir: &tempfile::TempDir, registry: &str) -> Vec<String> {
        let dirs = [dir.path().to_owned()];
        find(&dirs, registry).unwrap().endpoints.iter().map(url).collect()
    }

    fn url(endpoint: &Endpoint) -> String {
        let namespace = endpoint.namespace.as_ref().map(|name| format!("?ns={name}"));
        format!("{}{}{}", endpoint.origin, endpoint.root, namespace.unwrap_or_default())
    }

    #[test]
    fn an_unconfigured_name_leads_to_its_own_server() {
        let urls = |registry| unconfigured(registry).iter().map(url).collect::<Vec<_>>();
        assert_eq!(urls("docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(urls("quay.io"), ["https://quay.io/v2"]);
        assert_eq!(urls("r.io:5000"), ["https://r.io:5000/v2"]);
        assert_eq!(urls("localhost"), ["https://localhost/v2"]);
        assert_eq!(urls("127.0.0.1:80"), ["http://127.0.0.1/v2"]);
        assert_eq!(urls("[::1]:5000"), ["http://[::1]:5000/v2", "https://[::1]:5000/v2"]);
    }

    #[test]
    fn mirrors_come_first_and_are_told_whose_images_they_serve() {
        let dir = tree(&[(
            "docker.io/hosts.toml",
            r#"
            [host."https://zebra.io/cache"]
            [host."https://apple.io/v2/all"]
              override_path = true
            "#,
        )]);
        let wanted = [
            "https://zebra.io/cache/v2?ns=docker.io",
            "https://apple.io/v2/all?ns=docker.io",
            "https://registry-1.docker.io/v2",
        ];
        assert_eq!(found(&dir, "docker.io"), wanted);
    }

    #[test]
    fn a_folder_is_found_by_both_spellings_of_a_port() {
        let dir = tree(&[
            ("127.0.0.1_5000_/hosts.toml", "server = \"http://one\""),
            ("127.0.0.1:6000/hosts.toml", "server = \"http://two\""),
            ("_default/hosts.toml", "server = \"http://three\""),
        ]);
        assert_eq!(found(&dir, "127.0.0.1:5000"), ["http://one/v2?ns=127.0.0.1:5000"]);
        assert_eq!(found(&dir, "127.0.0.1:6000"), ["http://two/v2?ns=127.0.0.1:6000"]);
        assert_eq!(found(&dir, "r.io"), ["http://three/v2?ns=r.io"]);
    }

    #[test]
    fn a_registrys_own_folder_in_a_later_directory_beats_a_default_in_an_earlier() {
        let first = tree(&[("_default/hosts.toml", "server = \"http://any\"")]);
        let second = tree(&[("r.io/hosts.toml", "server = \"http://own\"")]);
        let dirs = [first.path().to_owned(), second.path().to_owned()];
        let found = find(&dirs, "r.io").unwrap().endpoints;
        assert_eq!(found.iter().map(url).collect::<Vec<_>>(), ["http://own/v2?ns=r.io"]);
        assert_eq!(found[0].role, Role::Own);
        assert_eq!(find(&dirs, "s.io").unwrap().endpoints[0].role, Role::Mirror);
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let dir = tree(&[("r.io/hosts.toml", "\nserver = 7\n")]);
        let error = find(&[dir.path().to_owned()], "r.io").map(drop).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("r.io/hosts.toml:2: "), "{text}");
    }

    #[test]
    fn a_ca_that_cannot_be_used_is_named() {
        let dir = tree(&[
            ("r.io/hosts.toml", "ca = \"ca.pem\""),
            ("r.io/ca.pem", "nothing"),
            ("s.io/hosts.toml", "ca = \"none.pem\""),
        ]);
        let error = |name| find(&[dir.path().to_owned()], name).map(drop).unwrap_err().to_string();
        assert!(error("r.io").contains("r.io/ca.pem: it holds no PEM certificate"));
        assert!(error("s.io").contains("s.io/none.pem"));
    }

    #[test]
    fn certificates_in_dockers_layout_serve_without_a_hosts_file() {
        let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let files = [("r.io/ca.crt", &cert), ("r.io/me.cert", &cert), ("r.io/me.key", &key)];
        let dir = tree(&files.map(|(path, text)| (path, text.as_str())));
        let found = find(&[dir.path().to_owned()], "r.io").unwrap().endpoints;
        assert_eq!(url(&found[0]), "https://r.io/v2");
        assert_eq!(found[0].line.ca.len(), 1);
        assert!(found[0].line.client.is_some());
    }

    #[test]
    fn an_unknown_key_is_warned_of_with_its_file() {
        let dir = tree(&[("r.io/hosts.toml", "rewrite = 7\n")]);
        let found = find(&[dir.path().to_owned()], "r.io").unwrap();
        assert!(found.warnings[0].0.ends_with("r.io/hosts.toml"));
    }
}
