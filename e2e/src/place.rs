//! Where one daemon under test has its things. Everything that it makes on the host is named after
//! it, so that tests can run side by side, and what a killed one leaves can be told and removed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Below here, since the path of a socket has at most 107 bytes.
const PARENT: &str = "/run";

#[derive(Clone, Debug)]
pub struct Place {
    /// All files of the daemon and of its test are below it.
    pub base: PathBuf,
    /// The process of the test, and the number of the daemon in it.
    pid: u32,
    number: u32,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::named(std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn named(pid: u32, number: u32) -> Self {
        Self { base: Path::new(PARENT).join(format!("pbt-{pid}-{number}")), pid, number }
    }

    /// The places of tests whose process is gone.
    pub(crate) fn abandoned() -> Vec<Self> {
        let entries = fs::read_dir(PARENT).into_iter().flatten().flatten();
        let places = entries.filter_map(|entry| Self::parse(entry.file_name().to_str()?));
        places.filter(|place| !Path::new("/proc").join(place.pid.to_string()).exists()).collect()
    }

    fn parse(name: &str) -> Option<Self> {
        let (pid, number) = name.strip_prefix("pbt-")?.split_once('-')?;
        Some(Self::named(pid.parse().ok()?, number.parse().ok()?))
    }

    pub fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.base.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.base.join("podbay.sock")
    }

    pub fn config(&self) -> PathBuf {
        self.base.join("config.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.base.join("podbayd.log")
    }

    /// The folder of the log folders of pods, as the kubelet has one.
    pub fn logs(&self) -> PathBuf {
        self.base.join("logs")
    }

    /// The folder of CNI configuration lists.
    pub fn net_d(&self) -> PathBuf {
        self.base.join("net.d")
    }

    /// The folder of the test's own CNI plugins.
    pub fn cni_bin(&self) -> PathBuf {
        self.base.join("cni-bin")
    }

    pub fn cni_cache(&self) -> PathBuf {
        self.base.join("cni-cache")
    }

    /// Where host-local keeps its leases, if it is told to.
    pub fn ipam(&self) -> PathBuf {
        self.base.join("ipam")
    }

    /// The folder of the sandboxer: its socket, `state` and `root`.
    pub fn sandboxer(&self) -> PathBuf {
        self.base.join("sandboxer")
    }

    pub fn certs_d(&self) -> PathBuf {
        self.base.join("certs.d")
    }

    /// The file that tells podbayd what is to go wrong.
    pub(crate) fn fault(&self) -> PathBuf {
        self.base.join("fault")
    }

    /// Below the root of every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("podbay-test-{}-{}", self.pid, self.number)
    }

    /// The built-in bridge.
    pub fn bridge(&self) -> String {
        format!("pbt{}n{}", self.pid, self.number)
    }

    /// The bridge of a CNI configuration.
    pub fn cni_bridge(&self) -> String {
        format!("pbc{}n{}", self.pid, self.number)
    }

    /// The first three numbers of the /24 that no other test has: that of the built-in bridge, or
    /// that of a CNI configuration.
    pub fn subnet(&self, cni: bool) -> String {
        let number = self.number % 128 + if cni { 128 } else { 0 };
        format!("10.{}.{number}", 128 + self.pid % 120)
    }
}
