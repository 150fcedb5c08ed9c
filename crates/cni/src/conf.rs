//! Network lists: what an administrator wrote into the conf directory, parsed and checked. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::version::Version;

/// A network: a name and the plugins that make it, in order. Right by construction.
///
/// It serialises as the text it was parsed from, so that a record of it holds what was in force when
/// a pod was attached, letter for letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkList {
    name: String,
    version: Version,
    plugins: Vec<Plugin>,
    disable_check: bool,
    disable_gc: bool,
    text: String,
}

/// One plugin of a network, and what the administrator wrote for it.
#[derive(Clone, Debug)]
pub struct Plugin {
    kind: String,
    capabilities: BTreeSet<String>,
    conf: Map<String, Value>,
}

/// Why a conf file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BadConf {
    #[error("it is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("{field} is missing")]
    Missing { field: String },
    #[error("{field} must be {rule}, and is {found}")]
    Wrong { field: String, rule: &'static str, found: String },
}

/// Parses a list of plugins, the content of a `.conflist` file.
///
/// # Errors
/// What is wrong with it, by the rules of section 1 of the specification.
pub fn parse_conflist(bytes: &[u8]) -> Result<NetworkList, BadConf> {
    let conf: Value = serde_json::from_slice(bytes).map_err(BadConf::NotJson)?;
    let text = String::from_utf8_lossy(bytes).into_owned();
    list(conf, text)
}

/// Parses a single plugin, the content of a `.conf` or `.json` file, into a list of one.
///
/// # Errors
/// What is wrong with it, by the rules of section 1 of the specification.
pub fn parse_conf(bytes: &[u8]) -> Result<NetworkList, BadConf> {
    let conf: Value = serde_json::from_slice(bytes).map_err(BadConf::NotJson)?;
    if conf.get("plugins").is_some() {
        return Err(wrong("plugins", "in a .conflist file", &conf["plugins"]));
    }
    let of_one = json!({
        "cniVersion": conf.get("cniVersion"),
        "name": conf.get("name"),
        "plugins": [conf],
    });
    let text = of_one.to_string();
    list(of_one, text)
}

fn list(conf: Value, text: String) -> Result<NetworkList, BadConf> {
    let Value::Object(mut conf) = conf else {
        return Err(wrong("it", "a JSON object", &conf));
    };
    let plugins = match conf.remove("plugins") {
        Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
        Some(other) => return Err(wrong("plugins", "a list of at least one plugin", &other)),
        None => return Err(missing("plugins")),
    };
    Ok(NetworkList {
        name: name(&conf)?,
        version: version(&conf)?,
        plugins: plugins.into_iter().enumerate().map(plugin).collect::<Result<_, _>>()?,
        disable_check: flag(&conf, "disableCheck")?,
        disable_gc: flag(&conf, "disableGC")?,
        text,
    })
}

fn name(conf: &Map<String, Value>) -> Result<String, BadConf> {
    const RULE: &str = "letters, digits, '_', '.' and '-', with a letter or digit first";
    match conf.get("name") {
        None | Some(Value::Null) => Err(missing("name")),
        Some(Value::String(name)) if is_word(name) => Ok(name.clone()),
        Some(other) => Err(wrong("name", RULE, other)),
    }
}

/// The greatest version that the list offers (in `cniVersion`, and since 1.1 in `cniVersions`) and
/// that we speak.
fn version(conf: &Map<String, Value>) -> Result<Version, BadConf> {
    let none = Value::String(String::new());
    let single = conf.get("cniVersion").filter(|v| !v.is_null()).unwrap_or(&none);
    let more = conf.get("cniVersions").and_then(Value::as_array);
    let offered = more.into_iter().flatten().chain(
        // An unnamed version means the first one only if nothing else is offered.
        (more.is_none() || *single != none).then_some(single),
    );
    offered
        .filter_map(|version| Version::parse(version.as_str()?))
        .max()
        .ok_or_else(|| wrong("cniVersion", "a version from 0.1.0 to 1.1.0", single))
}

/// A flag may be written as a word, too: the specification once had it so.
fn flag(conf: &Map<String, Value>, field: &str) -> Result<bool, BadConf> {
    match conf.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(wrong(field, "true or false", other)),
    }
}

fn plugin((at, conf): (usize, Value)) -> Result<Plugin, BadConf> {
    let field = format!("plugins[{at}]");
    let Value::Object(conf) = conf else {
        return Err(wrong(&field, "a JSON object", &conf));
    };
    let kind = match conf.get("type") {
        Some(Value::String(kind)) if is_file_name(kind) => kind.clone(),
        Some(other) => return Err(wrong(&format!("{field}.type"), FILE_NAME, other)),
        None => return Err(missing(&format!("{field}.type"))),
    };
    // The plugin looks for this one itself, in the same directories.
    if let Some(ipam) = conf.get("ipam").and_then(|ipam| ipam.get("type"))
        && ipam.as_str().is_some_and(|kind| !kind.is_empty() && !is_file_name(kind))
    {
        return Err(wrong(&format!("{field}.ipam.type"), FILE_NAME, ipam));
    }
    Ok(Plugin { kind, capabilities: capabilities(&conf, &field)?, conf })
}

fn capabilities(conf: &Map<String, Value>, field: &str) -> Result<BTreeSet<String>, BadConf> {
    match conf.get("capabilities") {
        None | Some(Value::Null) => Ok(BTreeSet::new()),
        Some(Value::Object(all)) => {
            let wanted = all.iter().filter(|(_, wanted)| **wanted == Value::Bool(true));
            Ok(wanted.map(|(name, _)| name.clone()).collect())
        }
        Some(other) => Err(wrong(&format!("{field}.capabilities"), "a JSON object", other)),
    }
}

/// A plugin that could be named by a path would be any program of the host (CVE-2021-20206).
const FILE_NAME: &str = "the bare name of a file";

fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0']) && name.len() <= 255
}

/// The rule of the specification for names of networks and ids of containers.
pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn missing(field: &str) -> BadConf {
    BadConf::Missing { field: field.to_owned() }
}

fn wrong(field: &str, rule: &'static str, found: &Value) -> BadConf {
    let found = match found {
        Value::Object(_) => "a JSON object".to_owned(),
        Value::Array(all) => format!("a list of {}", all.len()),
        plain => plain.to_string().chars().take(80).collect(),
    };
    BadConf::Wrong { field: field.to_owned(), rule, found }
}

impl NetworkList {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// At least one.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// The administrator does not want CHECK for this network.
    pub fn disables_check(&self) -> bool {
        self.disable_check
    }

    /// The administrator does not want GC for this network.
    pub fn disables_gc(&self) -> bool {
        self.disable_gc
    }

    /// The list as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether any plugin wants to be told of this capability (`portMappings`, `bandwidth` …).
    pub fn wants(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.wants(capability))
    }
}

impl Plugin {
    /// Its `type`: the name of its program.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn wants(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    pub(crate) fn conf(&self) -> &Map<String, Value> {
        &self.conf
    }
}

impl PartialEq for NetworkList {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl From<NetworkList> for String {
    fn from(network: NetworkList) -> String {
        network.text
    }
}

impl TryFrom<String> for NetworkList {
    type Error = BadConf;

    fn try_from(text: String) -> Result<Self, BadConf> {
        parse_conflist(text.as_bytes())
    }
}

#[cfg(test)]
mod tests;
