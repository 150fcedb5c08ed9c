//! `cargo xtask package`: one package for Debian and its like, of the programs of a release and the
//! files of `dist`. Of the same programs it makes the same bytes: no time of today, no name of this
//! machine and no order of its folders is in it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    children::{alone, finish},
    files::{at, make_dir, remove, take, write},
    programs,
};

/// Where each program is to be: what people call is on the `PATH`, and what podbayd calls is where it
/// looks for it.
fn place(program: &str) -> &'static str {
    match program {
        "podbay-shim" | "podbay-pause" => "usr/libexec/podbay",
        _ => "usr/bin",
    }
}

/// Files of the project, and where each is to be.
const FILES: [(&str, &str); 6] = [
    ("dist/podbayd.service", "lib/systemd/system/podbayd.service"),
    ("dist/crictl.yaml", "usr/share/podbay/crictl.yaml"),
    ("dist/debian/copyright", "usr/share/doc/podbay/copyright"),
    ("docs/install.md", "usr/share/doc/podbay/install.md"),
    ("CHANGELOG.md", "usr/share/doc/podbay/CHANGELOG.md"),
    ("crates/config/src/default.toml", "usr/share/doc/podbay/config.toml"),
];
/// Folders that are looked into, and may be empty.
const FOLDERS: [&str; 1] = ["etc/podbay/certs.d"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Beside the C library, in the version that the programs were linked with.
const NEEDS: &str = "kmod, libgcc-s1, libseccomp2 (>= 2.5.0), nftables";

pub(crate) fn run() -> Result<(), String> {
    eprintln!("package: building podbay; the first time takes some minutes");
    let package = make(&crate::root().join("target/package"), &programs::build(false)?)?;
    let size = fs::metadata(&package).map_err(at("looking at", &package))?.len();
    println!("{}: {}.{} MiB", package.display(), size >> 20, (size >> 10) % 1024 * 10 / 1024);
    Ok(())
}

/// Makes it in a folder, of the programs in another.
pub(crate) fn make(folder: &Path, programs: &Path) -> Result<PathBuf, String> {
    let architecture = told("dpkg", &["--print-architecture"])?;
    let version = env!("CARGO_PKG_VERSION");
    let stage = folder.join("stage");
    remove(&stage)?;
    fill(&stage, programs)?;
    describe(&stage, version, &architecture)?;
    let package = folder.join(format!("podbay_{version}_{architecture}.deb"));
    let mut dpkg = alone("KILL", "dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(&stage).arg(&package);
    dpkg.env("SOURCE_DATE_EPOCH", epoch()?);
    finish(dpkg, "dpkg-deb")?;
    remove(&stage)?;
    Ok(package)
}

fn fill(stage: &Path, programs: &Path) -> Result<(), String> {
    for program in programs::ALL {
        let to = stage.join(place(program)).join(program);
        make_dir(to.parent().unwrap_or(stage))?;
        // Without what is only for debuggers.
        let mut strip = alone("KILL", "strip");
        strip.arg("--strip-unneeded").arg("-o").arg(&to).arg(programs.join(program));
        finish(strip, "strip")?;
        set_mode(&to, 0o755)?;
    }
    for (from, to) in FILES {
        take(&crate::root().join(from), &stage.join(to))?;
        set_mode(&stage.join(to), 0o644)?;
    }
    FOLDERS.iter().try_for_each(|folder| make_dir(&stage.join(folder)))?;
    set_folders(stage)
}

/// What dpkg wants to know of it.
fn describe(stage: &Path, version: &str, architecture: &str) -> Result<(), String> {
    let folder = stage.join("DEBIAN");
    let size = size(stage)?.div_ceil(1024);
    let libc = told("dpkg-query", &["--show", "--showformat=${Version}", "libc6"])?;
    let libc = libc.split('-').next().unwrap_or_default();
    let control = format!(
        "Package: podbay\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: The authors of Podbay <podbay@localhost>\nInstalled-Size: {size}\n\
         Depends: libc6 (>= {libc}), {NEEDS}\nRecommends: ca-certificates\nSuggests: cri-tools, containernetworking-plugins, runc\n\
         Section: admin\nPriority: optional\n\
         Description: container runtime of a Kubernetes node\n \
         A kubelet, or crictl, speaks the Container Runtime Interface to it, and it\n makes pods. \
         It needs no configuration; `podbay demo` shows a first pod.\n"
    );
    write(&folder.join("control"), control)?;
    for script in SCRIPTS {
        take(&crate::root().join("dist/debian").join(script), &folder.join(script))?;
        set_mode(&folder.join(script), 0o755)?;
    }
    set_mode(&folder, 0o755)
}

/// Seconds since 1970 that all in it are of, at the latest: as told, else the last commit's.
fn epoch() -> Result<String, String> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(told) => Ok(told),
        Err(_) => told("git", &["log", "-1", "--format=%ct"]),
    }
}

/// What a program says, in one line.
fn told(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(crate::root()).output();
    let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {} ended with {}", arguments.join(" "), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whatever this process's umask is.
fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(at("setting the mode of", path))
}

fn set_folders(folder: &Path) -> Result<(), String> {
    set_mode(folder, 0o755)?;
    let entries = fs::read_dir(folder).map_err(at("listing", folder))?;
    let below = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    below.into_iter().try_for_each(|path| set_folders(&path))
}

/// Of all files beneath a folder, in bytes.
fn size(folder: &Path) -> Result<u64, String> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).map_err(at("listing", folder))?.flatten() {
        let meta = entry.metadata().map_err(at("looking at", &entry.path()))?;
        sum += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_same_programs_comes_the_same_package() {
        if ["dpkg-deb", "strip"]
            .iter()
            .any(|it| Command::new(it).arg("--version").output().is_err())
        {
            eprintln!("skipped: there is no dpkg-deb or strip here");
            return;
        }
        let folder = env::temp_dir().join(format!("podbay-package-{}", std::process::id()));
        let programs = folder.join("programs");
        make_dir(&programs).unwrap();
        for name in programs::ALL {
            fs::copy("/bin/true", programs.join(name)).unwrap();
        }
        let [one, other] = ["one", "other"].map(|name| make(&folder.join(name), &programs));
        let [one, other] = [one.unwrap(), other.unwrap()].map(|path| fs::read(path).unwrap());
        let listed = told("dpkg-deb", &["--contents", &made(&folder)]).unwrap();
        remove(&folder).unwrap();
        assert!(one == other, "they differ");
        assert!(listed.contains("./usr/libexec/podbay/podbay-shim"), "{listed}");
        assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
    }

    fn made(folder: &Path) -> String {
        let mut entries = fs::read_dir(folder.join("one")).unwrap();
        entries.next().unwrap().unwrap().path().display().to_string()
    }
}
