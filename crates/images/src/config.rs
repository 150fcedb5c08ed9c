//! The image config, as far as running a container needs it. Tolerant of all that it does not know:
//! a dozen builders write it, each a little otherwise.

use std::{collections::BTreeMap, str::FromStr};

use names::{Digest, Labels};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;

/// The largest config that is read, in bytes.
pub const LARGEST: u64 = 8 << 20;

/// What an image says about the containers made of it. Absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// As it is written; see [`ImageConfig::user`].
    pub user: String,
    /// `KEY=value`; entries without an equals sign are left out (CVE-2026-57231).
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub stop_signal: String,
    pub volumes: Vec<String>,
    pub labels: Labels,
    /// `80/tcp`
    pub exposed_ports: Vec<String>,
    pub architecture: String,
    pub variant: String,
    pub os: String,
    /// RFC 3339, as it is written.
    pub created: String,
}

/// Who runs a container's first process: the part of `user` before the colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    Uid(u32),
    /// To be looked up in the image's `/etc/passwd`.
    Name(String),
}

impl ImageConfig {
    /// The user, if the image names one. What looks like a number is one, or an error: looked up
    /// as a name it could become root (CVE-2026-46680).
    pub fn user(&self) -> Result<Option<User>, Error> {
        let user = self.user.split(':').next().unwrap_or_default();
        if user.is_empty() {
            return match self.user.is_empty() {
                true => Ok(None),
                false => Err(Error::BadUser(self.user.clone())),
            };
        }
        user.parse().map(Some)
    }
}

impl FromStr for User {
    type Err = Error;

    fn from_str(text: &str) -> Result<User, Error> {
        let bad = || Error::BadUser(text.to_owned());
        if text.bytes().all(|b| b.is_ascii_digit()) {
            // The last id means "unchanged" to the kernel.
            let uid = text.parse().ok().filter(|uid| *uid != u32::MAX);
            return uid.map(User::Uid).ok_or_else(bad);
        }
        let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let rest = |b: u8| first(b) || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'$');
        let good = text.len() <= 256 && text.bytes().next().is_some_and(first);
        if good && text.bytes().all(rest) { Ok(User::Name(text.to_owned())) } else { Err(bad()) }
    }
}

/// A config and what of it belongs to the image rather than to its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub config: ImageConfig,
    /// Of each layer, from the bottom up.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    created: String,
    #[serde(default, deserialize_with = "or_default")]
    config: Run,
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    stop_signal: String,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    labels: Labels,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
}

/// `null` is as good as absent: Go writes it for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads a config.
pub fn parse(bytes: &[u8]) -> Result<Parsed, serde_json::Error> {
    let File { architecture, variant, os, created, config: run, rootfs } =
        serde_json::from_slice(bytes)?;
    let config = ImageConfig {
        user: run.user,
        env: run.env.into_iter().filter(|entry| entry.find('=').is_some_and(|at| at > 0)).collect(),
        entrypoint: run.entrypoint,
        cmd: run.cmd,
        working_dir: run.working_dir,
        stop_signal: run.stop_signal,
        volumes: run.volumes.into_keys().collect(),
        labels: run.labels,
        exposed_ports: run.exposed_ports.into_keys().collect(),
        architecture,
        variant,
        os,
        created,
    };
    Ok(Parsed { config, diff_ids: rootfs.diff_ids })
}

/// The config of an image that is made here.
pub fn write(config: &ImageConfig, diff_ids: &[Digest]) -> Vec<u8> {
    let set = |names: &[String]| -> BTreeMap<String, Empty> {
        names.iter().map(|name| (name.clone(), Empty {})).collect()
    };
    let file = serde_json::json!({
        "architecture": config.architecture,
        "os": config.os,
        "config": {
            "User": config.user,
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "WorkingDir": config.working_dir,
            "StopSignal": config.stop_signal,
            "Volumes": set(&config.volumes),
            "Labels": config.labels,
            "ExposedPorts": set(&config.exposed_ports),
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    file.to_string().into_bytes()
}

#[derive(Serialize)]
struct Empty {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_config_is_read_with_whatever_else_is_in_it() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","history":[{{"empty_layer":true}}],"x":1,
            "config":{{"User":"1000:1000","Env":["A=b","BARE","=x"],"Cmd":null,
            "Entrypoint":["/bin/sh"],"Volumes":{{"/data":{{}}}},"ExposedPorts":{{"80/tcp":{{}}}},
            "Labels":{{"k":"v"}},"WorkingDir":"/w","StopSignal":"SIGQUIT","Healthcheck":{{}}}},
            "rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
        );
        let Parsed { config, diff_ids } = parse(text.as_bytes()).unwrap();
        assert_eq!(config.env, ["A=b"]);
        assert_eq!(config.entrypoint, ["/bin/sh"]);
        assert!(config.cmd.is_empty());
        assert_eq!(
            (config.volumes[0].as_str(), config.exposed_ports[0].as_str()),
            ("/data", "80/tcp")
        );
        assert_eq!(config.user().unwrap(), Some(User::Uid(1000)));
        assert_eq!(diff_ids[0].as_str(), digest);
        assert_eq!(parse(&write(&config, &diff_ids)).unwrap(), Parsed { config, diff_ids });
    }

    #[test]
    fn a_config_without_a_rootfs_or_with_a_bad_digest_is_refused() {
        assert!(parse(b"{}").is_err());
        assert!(parse(br#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#).is_err());
        assert!(parse(br#"{"config":null,"rootfs":{"diff_ids":null}}"#).is_ok());
    }

    #[test]
    fn a_user_is_a_number_or_a_name_and_nothing_between() {
        let user = |text: &str| ImageConfig { user: text.into(), ..ImageConfig::default() }.user();
        assert_eq!(user("").unwrap(), None);
        assert_eq!(user("0").unwrap(), Some(User::Uid(0)));
        assert_eq!(user("1000:50").unwrap(), Some(User::Uid(1000)));
        assert_eq!(user("www-data").unwrap(), Some(User::Name("www-data".into())));
        assert_eq!(user("nginx:nginx").unwrap(), Some(User::Name("nginx".into())));
        for bad in [
            "-1",
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "0x0",
            " 0",
            "１",
            "1 :0",
            ":0",
            "1a",
            "a b",
            "a\n",
            "+1",
        ] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
        assert_eq!(user("2147483648").unwrap(), Some(User::Uid(2_147_483_648)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_config_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_user_is_root_but_zero(text in "[ -~]{0,12}") {
            let config = ImageConfig { user: text.clone(), ..ImageConfig::default() };
            if let Ok(Some(User::Uid(0))) = config.user() {
                prop_assert!(text.split(':').next().unwrap().bytes().all(|b| b == b'0'));
            }
        }
    }
}
