//! The configuration file: keys, defaults, validation.
//!
//! `default.toml` beside this file is the reference: it holds every key with its default and its
//! meaning, is what `podbayd config default` prints, and is what [`Config::default`] parses. No
//! other file is read here, and nothing is made.

mod period;
mod suggest;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use period::Period;

/// Every key with its default and its meaning, as TOML.
pub const DEFAULT: &str = include_str!("default.toml");

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading the configuration {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin}: {message}")]
    Invalid { origin: String, message: String },
}

/// What podbayd is told.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub root: PathBuf,
    pub state: PathBuf,
    pub socket: PathBuf,
    pub log: String,
    pub default_handler: String,
    pub shim: PathBuf,
    pub pause: PathBuf,
    pub shim_deadline: Period,
    pub shim_grouping: Grouping,
    pub handlers: BTreeMap<String, Handler>,
    #[serde(default)]
    pub sandboxers: BTreeMap<String, Sandboxer>,
    pub cgroups: Cgroups,
    pub network: Network,
    pub images: Images,
    pub streaming: Streaming,
}

/// What a CRI runtime handler stands for.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    #[serde(default)]
    pub controller: Controller,
    #[serde(default)]
    pub runtime: String,
    /// The key of one of [`Config::sandboxers`], for that controller alone.
    #[serde(default)]
    pub sandboxer: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    Pause,
    #[default]
    Namespaces,
    Sandboxer,
}

/// Another process that keeps sandboxes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sandboxer {
    /// A unix socket, with or without `unix://`.
    pub address: String,
    /// What it is called in the calls to it; empty for the key of its table.
    #[serde(default)]
    pub name: String,
    #[serde(default = "Sandboxer::deadline")]
    pub deadline: Period,
    #[serde(default = "Sandboxer::start_deadline")]
    pub start_deadline: Period,
    #[serde(default = "Sandboxer::grace")]
    pub grace: Period,
    #[serde(default)]
    pub prepare: Prepare,
    /// What whoever runs its containers can do, since there is no way to ask.
    #[serde(default)]
    pub features: Vec<Feature>,
}

impl Sandboxer {
    fn deadline() -> Period {
        Period(Duration::from_secs(10))
    }

    fn start_deadline() -> Period {
        Period(Duration::from_secs(60))
    }

    fn grace() -> Period {
        Period(Duration::from_secs(300))
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        Path::new(self.address.strip_prefix("unix://").unwrap_or(&self.address))
    }
}

/// What a sandboxer is told of containers before they are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prepare {
    #[default]
    None,
    ExtensionsTasks,
}

/// What not everybody who runs containers can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    RecursiveReadOnlyMounts,
}

/// How many pods a shim serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grouping {
    Pod,
    Node,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cgroups {
    pub driver: CgroupDriver,
    pub parent: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupDriver {
    Auto,
    Cgroupfs,
    Systemd,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub conf_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    pub cache_dir: PathBuf,
    pub deadline: Period,
    pub fallback: Fallback,
    pub bridge: Bridge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    Auto,
    None,
    Bridge,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub name: String,
    pub subnets: Vec<String>,
    pub remove_on_exit: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    pub hosts_dirs: Vec<PathBuf>,
    pub pause_image: String,
    pub progress_deadline: Period,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Streaming {
    pub address: SocketAddr,
    pub idle: Period,
    pub tls_certificate: PathBuf,
    pub tls_key: PathBuf,
}

impl Streaming {
    /// The files of its certificate and of the key to that, if it is to be served over TLS.
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        let given = !self.tls_certificate.as_os_str().is_empty();
        given.then_some((&*self.tls_certificate, &*self.tls_key))
    }
}

impl Default for Config {
    fn default() -> Self {
        parse("", "the defaults").expect("default.toml is a good configuration, as a test shows")
    }
}

impl Config {
    /// The configuration in the file; keys that it leaves out have their defaults.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        parse(&text, &path.display().to_string())
    }
}

/// Parses a configuration; `origin` is what errors call it.
pub fn parse(text: &str, origin: &str) -> Result<Config, Error> {
    let invalid = |message: String| Error::Invalid { origin: origin.to_owned(), message };
    // Parsed twice: once alone, for errors that point at a line, and once laid over the defaults.
    let _: Partial = toml::from_str(text).map_err(|error| invalid(suggest::explain(&error)))?;
    let given: toml::Table = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
    let mut whole: toml::Table =
        toml::from_str(DEFAULT).map_err(|error| invalid(error.to_string()))?;
    overlay(&mut whole, given);
    let config: Config =
        whole.try_into().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
    check(&config).map_err(invalid)?;
    Ok(config)
}

/// The same keys, none of them needed: what a file may hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors alone")]
struct Partial {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    socket: Option<PathBuf>,
    log: Option<String>,
    default_handler: Option<String>,
    shim: Option<PathBuf>,
    pause: Option<PathBuf>,
    shim_deadline: Option<Period>,
    shim_grouping: Option<Grouping>,
    handlers: Option<BTreeMap<String, Handler>>,
    sandboxers: Option<BTreeMap<String, Sandboxer>>,
    cgroups: Option<PartialCgroups>,
    network: Option<PartialNetwork>,
    images: Option<PartialImages>,
    streaming: Option<PartialStreaming>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors alone")]
struct PartialCgroups {
    driver: Option<CgroupDriver>,
    parent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors alone")]
struct PartialNetwork {
    conf_dir: Option<PathBuf>,
    bin_dirs: Option<Vec<PathBuf>>,
    cache_dir: Option<PathBuf>,
    deadline: Option<Period>,
    fallback: Option<Fallback>,
    bridge: Option<PartialBridge>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors alone")]
struct PartialBridge {
    name: Option<String>,
    subnets: Option<Vec<String>>,
    remove_on_exit: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors alone")]
struct PartialImages {
    hosts_dirs: Option<Vec<PathBuf>>,
    pause_image: Option<String>,
    progress_deadline: Option<Period>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors alone")]
struct PartialStreaming {
    address: Option<SocketAddr>,
    idle: Option<Period>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

/// Lays `given` over `whole`, table by table; `handlers` is replaced whole, since a handler that the
/// file does not name is one that its author does not want.
fn overlay(whole: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        match (whole.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) if key != "handlers" => {
                overlay(old, new);
            }
            (_, value) => {
                whole.insert(key, value);
            }
        }
    }
}

fn check(config: &Config) -> Result<(), String> {
    let paths = [("root", &config.root), ("state", &config.state), ("socket", &config.socket)];
    for (key, path) in paths {
        if !path.is_absolute() {
            return Err(format!("`{key}` must be an absolute path, not {:?}", path.display()));
        }
    }
    if !config.handlers.contains_key(&config.default_handler) {
        let names: Vec<_> = config.handlers.keys().map(String::as_str).collect();
        let wanted = &config.default_handler;
        return Err(format!(
            "`default_handler` is {wanted:?}, which [handlers] does not define{}",
            suggest::nearest(wanted, &names)
        ));
    }
    config.handlers.iter().try_for_each(|(name, handler)| check_handler(config, name, handler))?;
    for (name, sandboxer) in &config.sandboxers {
        if !sandboxer.socket().is_absolute() {
            let address = &sandboxer.address;
            return Err(format!(
                "`sandboxers.{name}.address` must be the absolute path of a socket, not {address:?}"
            ));
        }
    }
    check_tls(&config.streaming)?;
    let parent = &config.cgroups.parent;
    if parent.is_empty() || parent.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!(
            "`cgroups.parent` must be a relative path without dots, not {parent:?}"
        ));
    }
    Ok(())
}

fn check_tls(streaming: &Streaming) -> Result<(), String> {
    let files = [&streaming.tls_certificate, &streaming.tls_key];
    match files.map(|path| (path.as_os_str().is_empty(), path.is_absolute())) {
        [(true, _), (true, _)] | [(_, true), (_, true)] => Ok(()),
        [(false, false), _] | [_, (false, false)] => {
            Err("`streaming.tls_certificate` and `streaming.tls_key` must be absolute paths".into())
        }
        _ => {
            Err("`streaming.tls_certificate` and `streaming.tls_key` go together: one is empty"
                .into())
        }
    }
}

fn check_handler(config: &Config, name: &str, handler: &Handler) -> Result<(), String> {
    let wanted = &handler.sandboxer;
    if handler.controller != Controller::Sandboxer {
        let given = !wanted.is_empty();
        let why = || {
            format!(
                "`handlers.{name}.sandboxer` has no meaning without `controller = \"sandboxer\"`"
            )
        };
        return if given { Err(why()) } else { Ok(()) };
    }
    if config.sandboxers.contains_key(wanted) {
        return Ok(());
    }
    let names: Vec<_> = config.sandboxers.keys().map(String::as_str).collect();
    let nearest = suggest::nearest(wanted, &names);
    Err(format!(
        "`handlers.{name}.sandboxer` is {wanted:?}, which [sandboxers] does not define{nearest}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults_and_the_defaults_name_every_key() {
        let config = parse("", "x").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config, toml::from_str(DEFAULT).unwrap());
        assert_eq!(config.socket, Path::new("/run/podbay/podbay.sock"));
    }

    #[test]
    fn a_file_says_only_what_differs() {
        let config = parse("[network]\nfallback = \"bridge\"\ndeadline = \"1500ms\"", "x").unwrap();
        assert_eq!(config.network.fallback, Fallback::Bridge);
        assert_eq!(config.network.deadline.0, std::time::Duration::from_millis(1500));
        assert_eq!(config.network.bridge.name, "podbay0");
    }

    #[test]
    fn a_sandboxer_needs_no_more_than_an_address() {
        let text = "default_handler = \"vm\"\n[sandboxers.vm]\naddress = \"unix:///run/vm.sock\"\n\
                    [handlers.vm]\ncontroller = \"sandboxer\"\nsandboxer = \"vm\"";
        let config = parse(text, "x").unwrap();
        let vm = &config.sandboxers["vm"];
        assert_eq!((vm.socket(), vm.prepare), (Path::new("/run/vm.sock"), Prepare::None));
        assert_eq!(config.handlers["vm"].controller, Controller::Sandboxer);
    }

    #[test]
    fn streams_go_over_tls_if_there_is_a_certificate_and_its_key() {
        assert_eq!(Config::default().streaming.tls(), None);
        let text = "[streaming]\ntls_certificate = \"/c.pem\"\ntls_key = \"/k.pem\"";
        let config = parse(text, "x").unwrap();
        assert_eq!(config.streaming.tls(), Some((Path::new("/c.pem"), Path::new("/k.pem"))));
    }

    #[test]
    fn handlers_that_the_file_does_not_name_are_gone() {
        let config = parse("default_handler = \"crun\"\n[handlers.crun]\nruntime = \"crun\"", "x");
        assert_eq!(config.unwrap().handlers.len(), 1);
    }

    #[test]
    fn a_wrong_key_is_refused_with_its_line_and_the_nearest_right_one() {
        let error = parse("root = \"/r\"\n[network]\nfallbak = \"bridge\"", "f.toml").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("f.toml: "), "{text}");
        assert!(text.contains("line 3") && text.contains("did you mean `fallback`?"), "{text}");
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_key() {
        for (text, part) in [
            ("root = \"relative\"", "`root` must be an absolute path"),
            ("default_handler = \"rnc\"", "did you mean `runc`?"),
            ("[cgroups]\nparent = \"../x\"", "cgroups.parent"),
            ("[network]\ndeadline = \"soon\"", "soon"),
            ("[sandboxers.vm]\naddress = \"vm.sock\"", "`sandboxers.vm.address` must be"),
            (
                "[sandboxers.vm]\naddress = \"/s\"\n[handlers.podbay]\ncontroller = \"sandboxer\"\nsandboxer = \"vn\"",
                "did you mean `vm`?",
            ),
            ("[handlers.podbay]\nsandboxer = \"vm\"", "has no meaning"),
            ("[network]\nfallback = \"magic\"", "magic"),
            ("[streaming]\ntls_key = \"/k\"", "go together"),
            ("[streaming]\ntls_certificate = \"/c\"", "go together"),
            ("[streaming]\ntls_certificate = \"c\"\ntls_key = \"/k\"", "absolute"),
            ("[sandboxers.vm]\naddress = \"/s\"\nfeatures = [\"all\"]", "all"),
            ("socket = 7", "line 1"),
        ] {
            let error = parse(text, "x").unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = parse(&text, "x");
        }
    }
}
