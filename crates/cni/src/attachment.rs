//! An attachment of a sandbox to a network: everything that ADD needs and that DEL will need, as one
//! value that the caller records before the first plugin runs.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    conf::{NetworkList, is_word},
    error::Error,
    outcome::Outcome,
};

/// One sandbox on one network. It is planned, recorded, added, recorded again with its result, and
/// at last deleted, from the record alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    network: NetworkList,
    container: String,
    netns: PathBuf,
    ifname: String,
    #[serde(default)]
    args: Vec<(String, String)>,
    #[serde(default)]
    capabilities: BTreeMap<String, Value>,
    /// What ADD returned; none before it has.
    #[serde(default)]
    pub result: Option<Value>,
}

impl Attachment {
    /// Plans to attach the sandbox `container`, whose network namespace will be pinned at `netns`,
    /// to `network`, where its interface will be `ifname`. Nothing happens.
    ///
    /// # Errors
    /// [`Error::Refused`] if a value could not be handed to a plugin, or would mean something else
    /// there.
    pub fn plan(
        network: &NetworkList,
        container: &str,
        netns: &Path,
        ifname: &str,
    ) -> Result<Attachment, Error> {
        if !is_word(container) {
            return Err(refused("container id", container, "letters, digits, '_', '.' and '-'"));
        }
        if !is_ifname(ifname) {
            return Err(refused("interface name", ifname, "a name of at most 15 bytes"));
        }
        if !netns.is_absolute() || netns.to_str().is_none_or(|path| path.contains('\0')) {
            return Err(refused("network namespace", &netns.to_string_lossy(), "an absolute path"));
        }
        Ok(Attachment {
            network: network.clone(),
            container: container.to_owned(),
            netns: netns.to_owned(),
            ifname: ifname.to_owned(),
            args: Vec::new(),
            capabilities: BTreeMap::new(),
            result: None,
        })
    }

    /// Adds `CNI_ARGS`, in order.
    ///
    /// # Errors
    /// [`Error::Refused`] if one would run into the next: `;` separates them, `=` ends a key.
    pub fn with_args(
        mut self,
        args: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Attachment, Error> {
        for (key, value) in args {
            if key.is_empty() || key.contains(['=', ';', '\0']) {
                return Err(refused("CNI argument", &key, "a key without '=' and ';'"));
            }
            if value.contains([';', '\0']) {
                return Err(refused("CNI argument", &value, "a value without ';'"));
            }
            self.args.push((key, value));
        }
        Ok(self)
    }

    /// Adds what is to be told to plugins that declare this capability; see [`crate::port_mappings`]
    /// and its like. Plugins that do not declare it never see it.
    pub fn with_capability(mut self, (name, value): (&str, Value)) -> Attachment {
        self.capabilities.insert(name.to_owned(), value);
        self
    }

    pub fn network(&self) -> &NetworkList {
        &self.network
    }

    pub fn container(&self) -> &str {
        &self.container
    }

    pub fn netns(&self) -> &Path {
        &self.netns
    }

    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    pub fn args(&self) -> &[(String, String)] {
        &self.args
    }

    pub fn capabilities(&self) -> &BTreeMap<String, Value> {
        &self.capabilities
    }

    /// What was made, from the recorded result.
    ///
    /// # Errors
    /// If nothing was attached yet, or the result is unreadable.
    pub fn outcome(&self) -> Result<Outcome, Error> {
        let network = || self.network.name().to_owned();
        let result = self.result.as_ref().ok_or_else(|| Error::NotAttached {
            container: self.container.clone(),
            network: network(),
        })?;
        Outcome::of(result).map_err(|source| Error::BadRecord { network: network(), source })
    }

    /// The sandbox's addresses on this network, the primary one first; at least one.
    ///
    /// # Errors
    /// As [`Attachment::outcome`], and [`Error::NoAddress`]: a pod cannot do without one, though an
    /// additional network may give none.
    pub fn pod_ips(&self) -> Result<Vec<IpAddr>, Error> {
        let ips = self.outcome()?.pod_ips(&self.ifname);
        if ips.is_empty() {
            return Err(Error::NoAddress {
                network: self.network.name().to_owned(),
                container: self.container.clone(),
                ifname: self.ifname.clone(),
            });
        }
        Ok(ips)
    }
}

/// The `CNI_ARGS` by which Kubernetes' plugins know a pod.
pub fn pod_args(namespace: &str, name: &str, uid: &str, sandbox: &str) -> Vec<(String, String)> {
    [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", namespace),
        ("K8S_POD_NAME", name),
        ("K8S_POD_INFRA_CONTAINER_ID", sandbox),
        ("K8S_POD_UID", uid),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

fn refused(field: &'static str, found: &str, rule: &'static str) -> Error {
    Error::Refused { field, found: found.chars().take(80).collect(), rule }
}

/// As the kernel's `dev_valid_name` has it.
fn is_ifname(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    !matches!(name, "" | "." | "..") && name.len() <= 15 && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conf::parse_conflist;

    const CONF: &str = r#"{ "cniVersion": "1.0.0",  "name": "pods",
        "plugins": [ {"type": "bridge"} ] }"#;

    fn network() -> NetworkList {
        parse_conflist(CONF.as_bytes()).unwrap()
    }

    #[test]
    fn a_record_of_it_holds_the_conf_letter_for_letter_and_reads_back_the_same() {
        let mut attachment = Attachment::plan(&network(), "c1", Path::new("/run/n"), "eth0")
            .unwrap()
            .with_args(pod_args("ns", "web", "u-1", "c1"))
            .unwrap()
            .with_capability(crate::mac("02:00:00:00:00:01"));
        attachment.result = Some(json!({"ips": []}));
        let text = serde_json::to_string(&attachment).unwrap();
        let back: Attachment = serde_json::from_str(&text).unwrap();
        assert_eq!(back, attachment);
        assert_eq!(back.network().text(), CONF);
        assert_eq!(back.args()[0], ("IgnoreUnknown".to_owned(), "1".to_owned()));
    }

    #[test]
    fn what_a_plugin_would_misread_is_refused() {
        let plan = |id, netns, ifname| {
            Attachment::plan(&network(), id, Path::new(netns), ifname).map(drop)
        };
        plan("a-b.c_d", "/run/n", "eth0.1").unwrap();
        for id in ["", "../x", "-a", "a b", "a/b", "ä"] {
            assert!(matches!(plan(id, "/run/n", "eth0"), Err(Error::Refused { .. })), "{id}");
        }
        for ifname in ["", ".", "..", "eth/0", "eth 0", "eth:0", "a234567890123456", "e\0"] {
            assert!(plan("c", "/run/n", ifname).is_err(), "{ifname}");
        }
        for netns in ["", "relative", "/a\0b"] {
            assert!(plan("c", netns, "eth0").is_err(), "{netns}");
        }
        let with = |key: &str, value: &str| {
            let plan = Attachment::plan(&network(), "c", Path::new("/n"), "eth0").unwrap();
            plan.with_args([(key.to_owned(), value.to_owned())]).map(drop)
        };
        with("K8S_POD_NAME", "a=b").unwrap();
        for (key, value) in [("", "x"), ("a=b", "x"), ("a;b", "x"), ("a", "x;IgnoreUnknown=0")] {
            assert!(with(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn addresses_are_asked_of_what_was_attached_only() {
        let mut plan = Attachment::plan(&network(), "c", Path::new("/n"), "eth0").unwrap();
        assert!(matches!(plan.pod_ips(), Err(Error::NotAttached { .. })));
        plan.result = Some(json!({"cniVersion": "1.0.0"}));
        assert!(matches!(plan.pod_ips(), Err(Error::NoAddress { .. })));
        plan.result = Some(json!({"ips": [{"address": "nonsense"}]}));
        assert!(matches!(plan.pod_ips(), Err(Error::BadRecord { .. })));
        plan.result = Some(json!({"ips": [{"address": "10.0.0.9/8"}]}));
        assert_eq!(plan.pod_ips().unwrap(), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
    }
}
