//! The OCI bundle of a container, as far as the shim itself looks into it: it keeps little, since
//! it keeps that for as long as the container lives. The runtime reads the whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{Gid, Uid};
use serde::{Deserialize, de::IgnoredAny};

use crate::error::Error;

pub const CONFIG: &str = "config.json";

/// What the shim keeps of a bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub dir: PathBuf,
    pub terminal: bool,
    /// The owner, on the host, of the container's first process, and so of its stdio.
    pub owner: (Uid, Gid),
    /// Its pid namespace is its own, so that nothing in it outlives its init.
    pub own_pids: bool,
    pub hooks: bool,
    pub cgroup: Option<PathBuf>,
}

impl Bundle {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Of class InvalidArgument if the config is none, or asks what cannot be given.
    pub fn read(dir: PathBuf) -> Result<Self, Error> {
        let path = dir.join(CONFIG);
        let bytes = fs::read(&path).map_err(|e| Error::io("reading the config", &path, e))?;
        let config: Config = serde_json::from_slice(&bytes)
            .map_err(|e| Error::bad("config.json", format!("{}: {e}", path.display())))?;
        config.check()?;
        Ok(config.keep(dir))
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }
}

#[derive(Deserialize)]
struct Config {
    process: Process,
    #[serde(default)]
    linux: Linux,
    hooks: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    user: User,
    #[serde(default)]
    args: Vec<String>,
    selinux_label: Option<String>,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    uid_mappings: Vec<Mapping>,
    #[serde(default)]
    gid_mappings: Vec<Mapping>,
    cgroups_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
    size: u32,
}

impl Config {
    fn check(&self) -> Result<(), Error> {
        if self.process.args.is_empty() {
            return Err(Error::bad("config.json", "process.args is empty"));
        }
        if self.process.selinux_label.as_ref().is_some_and(|label| !label.is_empty())
            && !Path::new("/sys/fs/selinux/enforce").exists()
        {
            let why = "process.selinuxLabel is set, but SELinux is not enabled on this host";
            return Err(Error::bad("config.json", why));
        }
        Ok(())
    }

    fn keep(self, dir: PathBuf) -> Bundle {
        let Self { process, linux, hooks } = self;
        let uid = outside(process.user.uid, &linux.uid_mappings);
        let gid = outside(process.user.gid, &linux.gid_mappings);
        Bundle {
            dir,
            terminal: process.terminal,
            owner: (Uid::from_raw(uid), Gid::from_raw(gid)),
            own_pids: linux.namespaces.iter().any(|ns| ns.kind == "pid" && ns.path.is_none()),
            hooks: hooks.is_some(),
            cgroup: linux.cgroups_path,
        }
    }
}

/// The id on the host. One that is not mapped is left, and will be refused by the kernel.
fn outside(id: u32, mappings: &[Mapping]) -> u32 {
    let inside = |m: &&Mapping| id >= m.inside && id - m.inside < m.size;
    mappings.iter().find(inside).map_or(id, |m| m.outside.saturating_add(id - m.inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Bundle, Error> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG), config).unwrap();
        Bundle::read(dir.path().to_owned())
    }

    #[test]
    fn the_owner_of_the_stdio_is_the_user_as_the_host_knows_it() {
        let config = r#"{"ociVersion":"1.2.0","process":{"args":["a"],"user":{"uid":5,"gid":7},
            "cwd":"/"},"linux":{"uidMappings":[{"containerID":0,"hostID":1000,
            "size":6}],"gidMappings":[{"containerID":0,"hostID":2000,"size":7}],
            "namespaces":[{"type":"pid"},{"type":"network","path":"/x"}]}}"#;
        let bundle = read(config).unwrap();
        assert_eq!(bundle.owner, (Uid::from_raw(1005), Gid::from_raw(7)));
        assert!(bundle.own_pids && !bundle.hooks && !bundle.terminal);
    }

    #[test]
    fn a_config_that_asks_for_nothing_or_for_selinux_is_refused() {
        for config in [
            "{}",
            "[",
            r#"{"process":{"args":[],"cwd":"/"}}"#,
            r#"{"process":{"args":["a"],"selinuxLabel":"x:y:z"}}"#,
        ] {
            assert_eq!(read(config).unwrap_err().class(), names::Class::InvalidArgument);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_config_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = read(&text);
        }
    }
}
