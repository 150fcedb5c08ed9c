//! The namespaces of a pod beside its network's: System V ipc with POSIX queues, and the host name.
//! They are made together, on one thread, and pinned each to a file.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{
    netns,
    pin::{self, Kind, naming, on_a_thread},
    sysctl,
};

/// What to make. Nothing wanted is nothing made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Where to pin an ipc namespace.
    pub ipc: Option<&'a Path>,
    /// Where to pin a uts namespace, and the name of the host in it, of 64 bytes at most.
    pub uts: Option<(&'a Path, &'a str)>,
    /// The network namespace, pinned already, in which the sysctls of the network are set.
    pub network: Option<&'a Path>,
    /// Sysctls, named as `sysctl(8)` does, and their values. The caller has seen to it that each is of
    /// a namespace that is named here.
    pub sysctls: &'a [(&'a str, &'a str)],
}

/// Makes the namespaces, and pins each to its file, which must not exist. Blocks, for about a
/// tenth of a millisecond.
///
/// # Errors
/// `InvalidInput` for what is no sysctl, `AlreadyExists` if one of the files does; else what the kernel said, with what it was about. What
/// this call made is unmade then.
pub fn make(wanted: &Wanted<'_>) -> io::Result<()> {
    if wanted.paths().next().is_none() && wanted.sysctls.is_empty() {
        return Ok(());
    }
    let sysctls = wanted.sysctls.iter().map(|(name, value)| Ok((sysctl::file(name)?, *value)));
    let sysctls = sysctls.collect::<io::Result<Vec<_>>>()?;
    let mut placed = Vec::new();
    let made =
        wanted.paths().try_for_each(|path| pin::place(path).map(|()| placed.push(path))).and_then(
            |()| on_a_thread("namespaces", || make_on_this_thread(wanted, &sysctls)).flatten(),
        );
    made.inspect_err(|_| {
        for path in placed {
            // What went wrong first is what the caller is told.
            let _ = pin::unmake(path);
        }
    })
}

impl<'a> Wanted<'a> {
    fn paths(&self) -> impl Iterator<Item = &'a Path> {
        self.ipc.into_iter().chain(self.uts.map(|(path, _)| path))
    }
}

fn make_on_this_thread(wanted: &Wanted<'_>, sysctls: &[(PathBuf, &str)]) -> io::Result<()> {
    if let Some(network) = wanted.network {
        netns::enter(network).map_err(|e| naming("entering the network namespace", e))?;
    }
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWIPC, wanted.ipc.is_some());
    flags.set(UnshareFlags::NEWUTS, wanted.uts.is_some());
    // SAFETY: only unsharing the descriptor table can harm other threads; these are others.
    unsafe { unshare_unsafe(flags) }.map_err(|e| naming("unshare", e.into()))?;
    if let Some((path, name)) = wanted.uts {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|e| naming("setting the host name", e.into()))?;
        pin::own(Kind::Uts, path)?;
    }
    sysctl::write(sysctls)?;
    wanted.ipc.map_or(Ok(()), |path| pin::own(Kind::Ipc, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::tests::as_root_in_own_mounts;

    fn hostname() -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    #[test]
    fn namespaces_are_new_pinned_and_have_what_was_asked_for() {
        as_root_in_own_mounts(|dir| {
            let (ipc, uts, before) = (dir.join("ns/ipc"), dir.join("ns/uts"), hostname());
            let sysctls = [("kernel.shm_rmid_forced", "1")];
            let wanted = Wanted {
                ipc: Some(&ipc),
                uts: Some((&uts, "inside")),
                sysctls: &sysctls,
                ..Wanted::default()
            };
            make(&wanted).unwrap();
            assert!(pin::is_pinned(&ipc, Kind::Ipc) && pin::is_pinned(&uts, Kind::Uts));
            assert!(!pin::is_pinned(&ipc, Kind::Uts) && !netns::is_netns(&ipc));
            assert_eq!(hostname(), before, "the caller stays where it was");
            assert_eq!(make(&wanted).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert!(pin::is_pinned(&ipc, Kind::Ipc), "what was there is left alone");
            for path in [&ipc, &uts] {
                pin::unmake(path).unwrap();
                pin::unmake(path).unwrap();
                assert!(!path.exists());
            }
        });
    }

    #[test]
    fn nothing_is_left_of_namespaces_that_could_not_be_made() {
        as_root_in_own_mounts(|dir| {
            let (ipc, uts) = (dir.join("ns/ipc"), dir.join("ns/uts"));
            let long = "x".repeat(65);
            let sysctls = [("kernel/no_such_thing", "1")];
            let named = Wanted { ipc: Some(&ipc), uts: Some((&uts, &long)), ..Wanted::default() };
            let set = Wanted { ipc: Some(&ipc), sysctls: &sysctls, ..Wanted::default() };
            for (wanted, about) in [(named, "host name"), (set, "no_such_thing")] {
                let error = make(&wanted).unwrap_err().to_string();
                assert!(error.contains(about), "{error}");
                assert!(!ipc.exists() && !uts.exists());
            }
        });
    }
}
