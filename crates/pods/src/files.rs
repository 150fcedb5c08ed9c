//! The files that a pod gives its containers: `hostname`, `hosts`, `resolv.conf`, and its shared
//! memory. Nothing a pod says can add a line to them that it could not say as a value: texts with
//! control characters are refused when the plan is made.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::IpAddr,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use sys::{
    beneath,
    mount::{Attributes, Tmpfs},
};

use crate::{Error, error::Context, plan::Dns, pod::PodRecord};

/// A pod's shared memory: as large as Docker, containerd and CRI-O make it.
const SHM: Tmpfs = Tmpfs {
    size: Some(64 << 20),
    inodes: None,
    mode: 0o1777,
    attributes: Attributes {
        read_only: false,
        no_suid: true,
        no_dev: true,
        no_exec: true,
        access_times: None,
    },
};

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// Where the files of a pod are.
pub(crate) struct Files<'a>(pub(crate) &'a PodRecord);

impl Files<'_> {
    pub(crate) fn hostname(&self) -> PathBuf {
        self.0.state_dir.join("hostname")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.0.state_dir.join("hosts")
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.0.state_dir.join("resolv.conf")
    }

    /// The pod's shared memory, or the host's with the host's ipc namespace.
    pub(crate) fn shm(&self) -> PathBuf {
        match self.own_shm() {
            Some(path) => path,
            None => PathBuf::from("/dev/shm"),
        }
    }

    pub(crate) fn own_shm(&self) -> Option<PathBuf> {
        let host = self.0.plan.namespaces.ipc == crate::plan::Sharing::Node;
        (!host).then(|| self.0.state_dir.join("shm"))
    }

    pub(crate) fn make(&self) -> Result<(), Error> {
        for dir in [&self.0.state_dir, &self.0.state_dir.join("containers")] {
            make_dir(dir)?;
            crate::owners::let_through(self.0, dir).on("opening the folder", dir)?;
        }
        write(&self.hostname(), &format!("{}\n", hostname(self.0)))?;
        self.write_hosts()?;
        write(&self.resolv_conf(), &resolv_conf(self.0.plan.dns.as_ref())?)?;
        for path in [self.hostname(), self.hosts(), self.resolv_conf()] {
            crate::owners::give(self.0, &path).on("giving to the pod", &path)?;
        }
        if let Some(shm) = self.own_shm() {
            make_dir(&shm)?;
            let mounted = SHM.make().and_then(|tmpfs| tmpfs.attach(&shm));
            mounted.on("mounting shared memory at", &shm)?;
        }
        Ok(())
    }

    /// With the pod's addresses, once it has them. The file is written in place: containers that
    /// have it mounted see the change.
    pub(crate) fn write_hosts(&self) -> Result<(), Error> {
        let text = match self.0.plan.namespaces.host_network() {
            true => host_file("/etc/hosts")?,
            false => hosts(&self.0.addresses, &hostname(self.0)),
        };
        write(&self.hosts(), &text)
    }

    pub(crate) fn unmake(&self) -> Result<(), Error> {
        remove(&self.0.state_dir)
    }
}

/// Removes a folder with all that is in it, and unmounts what is mounted there.
pub(crate) fn remove(dir: &Path) -> Result<(), Error> {
    sys::below::detach(dir).on("unmounting what is below", dir)?;
    remove_unmounted(dir)
}

/// Removes a folder with all that is in it. Something mounted there ends it: it is somebody's, and
/// whatever is wrong, nothing of it is removed.
pub(crate) fn remove_unmounted(dir: &Path) -> Result<(), Error> {
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    let remove = || match beneath::open_root(above) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        above => beneath::remove(above?, name.as_bytes()),
    };
    remove().on("removing", dir)
}

/// The name that the pod's processes see.
pub(crate) fn hostname(pod: &PodRecord) -> String {
    if !pod.plan.hostname.is_empty() {
        return pod.plan.hostname.clone();
    }
    if pod.plan.namespaces.host_network() {
        let uname = rustix::system::uname();
        return uname.nodename().to_string_lossy().into_owned();
    }
    pod.id.as_str()[..12].to_owned()
}

fn hosts(addresses: &[IpAddr], hostname: &str) -> String {
    addresses
        .iter()
        .fold(HOSTS.to_owned(), |text, address| format!("{text}{address}\t{hostname}\n"))
}

fn resolv_conf(dns: Option<&Dns>) -> Result<String, Error> {
    let Some(dns) = dns else { return host_file("/etc/resolv.conf") };
    let mut text = String::new();
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    for (word, list) in [("search", &dns.searches), ("options", &dns.options)] {
        if !list.is_empty() {
            text += &format!("{word} {}\n", list.join(" "));
        }
    }
    Ok(text)
}

/// The host's file, or nothing if the host has none.
fn host_file(path: &str) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.on("reading", path),
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).on("making the folder", path)
}

/// Writes a file that is nobody else's to read: a config has the container's environment in it.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).on("writing", path)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(path, readable).on("setting the mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ends_with_the_pods_own_addresses() {
        let addresses = ["10.88.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let text = hosts(&addresses, "web-0");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.88.0.5\tweb-0\nfd00::5\tweb-0\n"));
    }

    #[test]
    fn resolv_conf_says_what_the_request_says() {
        let dns = Dns {
            servers: vec!["10.10.10.10".into(), "10.10.10.11".into()],
            searches: vec!["a.svc".into(), "b".into()],
            options: vec!["ndots:8".into()],
        };
        let text = resolv_conf(Some(&dns)).unwrap();
        assert_eq!(
            text,
            "nameserver 10.10.10.10\nnameserver 10.10.10.11\nsearch a.svc b\noptions ndots:8\n"
        );
        assert_eq!(resolv_conf(None).unwrap(), host_file("/etc/resolv.conf").unwrap());
    }
}
