//! What the machine's disk is made from: Debian's packages, from where this host's apt has its own.

use std::process::Command;

/// Beside what dpkg and apt need themselves.
const PACKAGES: [&str; 24] = [
    "apparmor",
    // The image of `podbay demo` is made of it.
    "busybox-static",
    "ca-certificates",
    "containernetworking-plugins",
    "dbus",
    "docker-registry",
    "iproute2",
    "iptables",
    "kmod",
    "less",
    "libpam-systemd",
    "libseccomp2",
    "linux-image-cloud-amd64",
    "nftables",
    "openssl",
    "procps",
    "psmisc",
    "runc",
    "skopeo",
    "strace",
    // critest loads its AppArmor profiles by it.
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// Files that nobody reads in there.
const LEFT_OUT: [&str; 4] = ["doc", "info", "locale", "man"];

pub(super) struct Debian {
    /// As in `VERSION_CODENAME`. Our programs are built for the host's C library, so that the machine
    /// needs the same.
    release: String,
    /// Lines of a `sources.list`.
    pub sources: String,
}

impl Debian {
    pub(super) fn of_host() -> Result<Self, String> {
        let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let release = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let release = release.unwrap_or_default().trim_matches('"').to_owned();
        let sources = sources()?;
        if release.is_empty() || sources.is_empty() {
            return Err(
                "apt knows no archive of Debian: the machine is made of its packages".into()
            );
        }
        Ok(Self { release, sources })
    }

    /// All that the disk's content depends on.
    pub(super) fn inputs(&self) -> String {
        format!("{} {} {:?} {LEFT_OUT:?}", self.release, self.sources, PACKAGES)
    }

    /// Adds what `mmdebstrap` is to do. Where to read the sources comes after it.
    pub(super) fn order(&self, mmdebstrap: &mut Command) {
        mmdebstrap.args(["--mode=root", "--variant=minbase", "--format=directory"]);
        mmdebstrap.arg("--aptopt=Acquire::Languages \"none\"");
        for name in LEFT_OUT {
            mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{name}/*"));
        }
        mmdebstrap.arg(format!("--include={}", PACKAGES.join(","))).arg(&self.release);
    }
}

/// The archives of Debian that apt is configured for, whatever else it is configured for.
fn sources() -> Result<String, String> {
    let format = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let listed = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages", "Origin: Debian"])
        .output()
        .map_err(|error| format!("apt-get cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}
