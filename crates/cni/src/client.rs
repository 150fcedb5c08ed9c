//! The client: finds a network's plugins, runs them in order, and hands each what the one before it
//! made.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    attachment::Attachment,
    cache,
    conf::{NetworkList, Plugin},
    dir::{ConfDir, NoNetwork, Skipped},
    error::{Call, Error, Verb},
    exec::{self, Deadline},
    outcome::{self, BadResult, Outcome},
};

/// Where plugins find the programs that they run themselves, if we do not know it either.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone, Debug)]
pub struct Config {
    /// Where administrators define networks: `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Where plugins are looked for, in order: `/opt/cni/bin`.
    pub bin_dirs: Vec<PathBuf>,
    /// Where result files are left for other tools: `/var/lib/cni`.
    pub cache_dir: PathBuf,
    /// How long one call may take, with all of its plugins together.
    pub deadline: Duration,
}

pub struct Cni {
    conf: ConfDir,
    bin_dirs: Vec<PathBuf>,
    cache_dir: PathBuf,
    deadline: Duration,
    path: OsString,
}

/// Whether pods can be given a network now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The default network's name, if there is one.
    pub network: Option<String>,
    /// Why pods cannot be attached to it; none if they can.
    pub trouble: Option<String>,
    /// Files in the conf directory that are of no use.
    pub skipped: Vec<Skipped>,
}

impl Cni {
    pub fn new(config: Config) -> Cni {
        let Config { conf_dir, bin_dirs, cache_dir, deadline } = config;
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        Cni { conf: ConfDir::new(conf_dir), bin_dirs, cache_dir, deadline, path }
    }

    /// The network that pods are attached to: the first usable file of the conf directory, in
    /// lexical order of names. A file that changed is read again.
    ///
    /// # Errors
    /// Why there is none.
    pub fn default(&self) -> Result<Arc<NetworkList>, NoNetwork> {
        self.conf.default()
    }

    /// The network of this name, for an additional interface.
    ///
    /// # Errors
    /// [`Error::NoSuchNetwork`].
    pub fn named(&self, name: &str) -> Result<Arc<NetworkList>, Error> {
        self.conf.named(name).ok_or_else(|| Error::NoSuchNetwork {
            name: name.chars().take(80).collect(),
            dir: self.conf.path().to_owned(),
        })
    }

    /// Attaches: every plugin of the network in order. Returns the last one's result, for the
    /// caller to record. Whatever goes wrong, and however far it got, [`Cni::del`] undoes it.
    ///
    /// # Errors
    /// Any of [`Error`]; see [`Error::made_nothing`].
    pub async fn add(&self, attachment: &Attachment) -> Result<Value, Error> {
        let network = attachment.network();
        let programs = self.find_all(Verb::Add, network)?;
        must_be_netns(attachment)?;
        let deadline = Deadline::after(self.deadline);
        let env = self.env(Verb::Add, Some(attachment));
        let mut last = None;
        for (plugin, program) in network.plugins().iter().zip(programs) {
            let call = call(Verb::Add, network, plugin);
            let conf = conf_of(network, plugin, attachment, last.as_ref());
            let printed = exec::run(&call, &program, &env, &conf, deadline).await?;
            last = Some(result(&printed.stdout, network).map_err(|source| Error::BadResult {
                call: Box::new(call),
                said: printed.said(),
                source,
            })?);
        }
        let result = last.expect("a network has at least one plugin");
        if let Err(e) = cache::put(&self.cache_dir, attachment, &result) {
            tracing::warn!(dir = %self.cache_dir.display(), error = %e, "no result file for others");
        }
        Ok(result)
    }

    /// Detaches, from the attachment alone: every plugin in reverse order, each told the recorded
    /// result. Idempotent, and content with an ADD that failed half way or never ran, and with a
    /// namespace that is gone. It stops at the first plugin that fails, and can be called again.
    ///
    /// # Errors
    /// Any of [`Error`]. A missing plugin is one only if the ADD had succeeded: else it may well be
    /// why the ADD failed, and what is not installed made nothing.
    pub async fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        let network = attachment.network();
        let deadline = Deadline::after(self.deadline);
        let env = self.env(Verb::Del, Some(attachment));
        // The result is told to those that came to know it with CHECK.
        let told = attachment.result.as_ref().filter(|_| network.version().has_check());
        for plugin in network.plugins().iter().rev() {
            let program = match self.find(Verb::Del, network, plugin) {
                Err(e) if attachment.result.is_none() => {
                    tracing::warn!(error = %e, "plugin left out of an undo");
                    continue;
                }
                found => found?,
            };
            let conf = conf_of(network, plugin, attachment, told);
            exec::run(&call(Verb::Del, network, plugin), &program, &env, &conf, deadline).await?;
        }
        if let Err(e) = cache::erase(&self.cache_dir, attachment) {
            tracing::warn!(dir = %self.cache_dir.display(), error = %e, "a result file remains");
        }
        Ok(())
    }

    /// Asks every plugin whether the attachment is still as ADD made it. Says yes without asking if
    /// the network's `disableCheck` is set.
    ///
    /// # Errors
    /// [`Error::NoSuchVerb`] before 0.4.0, [`Error::NotAttached`] without a result, and what
    /// plugins say.
    pub async fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        let network = attachment.network();
        if !network.version().has_check() {
            return Err(Error::NoSuchVerb {
                network: network.name().to_owned(),
                verb: Verb::Check,
                version: network.version().as_str(),
            });
        }
        if network.disables_check() {
            return Ok(());
        }
        attachment.outcome()?;
        must_be_netns(attachment)?;
        let env = self.env(Verb::Check, Some(attachment));
        let conf = |plugin| conf_of(network, plugin, attachment, attachment.result.as_ref());
        self.tell_all(Verb::Check, network, &env, conf).await
    }

    /// Whether pods can be attached now: there is a default network, its plugins are installed, and
    /// (since CNI 1.1) they say that they are ready.
    pub async fn status(&self) -> Status {
        let skipped = self.conf.networks().skipped.clone();
        let network = match self.default() {
            Ok(network) => network,
            Err(e) => return Status { network: None, trouble: Some(e.to_string()), skipped },
        };
        let trouble = self.ready(&network).await.err().map(|e| with_causes(&e));
        Status { network: Some(network.name().to_owned()), trouble, skipped }
    }

    async fn ready(&self, network: &NetworkList) -> Result<(), Error> {
        self.find_all(Verb::Status, network)?;
        if !network.version().has_status() {
            return Ok(());
        }
        let env = self.env(Verb::Status, None);
        let conf = |plugin| bytes(&conf_for(network, plugin));
        self.tell_all(Verb::Status, network, &env, conf).await
    }

    /// Tells the network's plugins which attachments are alive, so that they free what belongs to
    /// none of them. All plugins are told, even if one fails. Does nothing before CNI 1.1, or if
    /// the network's `disableGC` is set.
    ///
    /// `valid` must hold the attachments of everybody who uses this network on this host.
    ///
    /// # Errors
    /// The first plugin's failure.
    pub async fn gc(&self, network: &NetworkList, valid: &[Attachment]) -> Result<(), Error> {
        if !network.version().has_status() || network.disables_gc() {
            return Ok(());
        }
        let alive: Value = valid
            .iter()
            .filter(|attachment| attachment.network().name() == network.name())
            .map(|a| json!({ "containerID": a.container(), "ifname": a.ifname() }))
            .collect();
        let env = self.env(Verb::Gc, None);
        let conf = |plugin| {
            let mut conf = conf_for(network, plugin);
            conf.insert("cni.dev/valid-attachments".to_owned(), alive.clone());
            bytes(&conf)
        };
        self.tell_all(Verb::Gc, network, &env, conf).await
    }

    /// Runs all plugins in order, for a verb that has no result. GC goes on after a failure: what
    /// one plugin cannot free is no reason to keep the rest.
    async fn tell_all<'a>(
        &self,
        verb: Verb,
        network: &'a NetworkList,
        env: &[(&str, OsString)],
        conf: impl Fn(&'a Plugin) -> Vec<u8>,
    ) -> Result<(), Error> {
        let programs = self.find_all(verb, network)?;
        let deadline = Deadline::after(self.deadline);
        let mut first = Ok(());
        for (plugin, program) in network.plugins().iter().zip(programs) {
            let call = call(verb, network, plugin);
            let told = exec::run(&call, &program, env, &conf(plugin), deadline).await;
            if first.is_ok() {
                first = told.map(drop);
            }
            if first.is_err() && verb != Verb::Gc {
                break;
            }
        }
        first
    }

    fn find_all(&self, verb: Verb, network: &NetworkList) -> Result<Vec<PathBuf>, Error> {
        network.plugins().iter().map(|plugin| self.find(verb, network, plugin)).collect()
    }

    fn find(&self, verb: Verb, network: &NetworkList, plugin: &Plugin) -> Result<PathBuf, Error> {
        let candidates = self.bin_dirs.iter().map(|dir| dir.join(plugin.kind()));
        candidates.into_iter().find(|program| program.is_file()).ok_or_else(|| {
            Error::MissingPlugin {
                call: Box::new(call(verb, network, plugin)),
                dirs: self.bin_dirs.clone(),
            }
        })
    }

    /// All that a plugin gets to know by its environment; nothing of ours but `PATH`.
    fn env(&self, verb: Verb, on: Option<&Attachment>) -> Vec<(&'static str, OsString)> {
        let mut dirs = OsString::new();
        for (at, dir) in self.bin_dirs.iter().enumerate() {
            dirs.push(if at > 0 { ":" } else { "" });
            dirs.push(dir);
        }
        let mut env = vec![("PATH", self.path.clone()), ("CNI_COMMAND", verb.as_str().into())];
        env.push(("CNI_PATH", dirs));
        if let Some(attachment) = on {
            env.extend([
                ("CNI_CONTAINERID", attachment.container().into()),
                ("CNI_NETNS", netns_of(verb, attachment)),
                ("CNI_IFNAME", attachment.ifname().into()),
                ("CNI_ARGS", args(attachment).into()),
            ]);
        }
        env
    }
}

impl Status {
    pub fn is_ready(&self) -> bool {
        self.trouble.is_none()
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// DEL is told of no namespace if it is gone, also if an empty file was left in its place: plugins
/// then free what they hold on the host, addresses above all.
fn netns_of(verb: Verb, attachment: &Attachment) -> OsString {
    match verb {
        Verb::Del if !sys::netns::is_netns(attachment.netns()) => OsString::new(),
        _ => attachment.netns().into(),
    }
}

fn must_be_netns(attachment: &Attachment) -> Result<(), Error> {
    let path = attachment.netns();
    match sys::netns::is_netns(path) {
        true => Ok(()),
        false => Err(Error::NoNamespace { path: path.to_owned() }),
    }
}

fn args(attachment: &Attachment) -> String {
    let pairs = attachment.args().iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(";")
}

fn call(verb: Verb, network: &NetworkList, plugin: &Plugin) -> Call {
    Call { verb, plugin: plugin.kind().to_owned(), network: network.name().to_owned() }
}

/// What the administrator wrote for a plugin, under the list's name and version.
fn conf_for(network: &NetworkList, plugin: &Plugin) -> Map<String, Value> {
    let mut conf = plugin.conf().clone();
    conf.insert("name".to_owned(), json!(network.name()));
    conf.insert("cniVersion".to_owned(), json!(network.version().as_str()));
    conf
}

/// The same with what is known of one attachment: the result so far, and the capabilities that this
/// plugin declares.
fn conf_of(
    network: &NetworkList,
    plugin: &Plugin,
    attachment: &Attachment,
    before: Option<&Value>,
) -> Vec<u8> {
    let mut conf = conf_for(network, plugin);
    if let Some(before) = before {
        conf.insert("prevResult".to_owned(), before.clone());
    }
    let wanted: BTreeMap<_, _> =
        attachment.capabilities().iter().filter(|(name, _)| plugin.wants(name)).collect();
    if !wanted.is_empty() {
        conf.insert("runtimeConfig".to_owned(), json!(wanted));
    }
    bytes(&conf)
}

fn bytes(conf: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec(conf).expect("JSON values are JSON")
}

/// A plugin's result, once it is known to be one. One that names no version is of the list's.
fn result(printed: &[u8], network: &NetworkList) -> Result<Value, BadResult> {
    let mut result = outcome::to_json(printed)?;
    Outcome::of(&result)?;
    if result.get("cniVersion").and_then(Value::as_str).is_none_or(str::is_empty) {
        result["cniVersion"] = json!(network.version().as_str());
    }
    Ok(result)
}

#[cfg(test)]
mod tests;
