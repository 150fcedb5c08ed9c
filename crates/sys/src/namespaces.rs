//! The namespaces of a pod beside its network's: System V ipc with POSIX queues, and the host name.
//! They are made together, on one thread, and pinned each to a file.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::thread::{
    Gid, Uid, UnshareFlags, move_into_link_name_space, set_thread_res_gid, set_thread_res_uid,
    unshare_unsafe,
};

use crate::{
    netns,
    pin::{self, Kind, naming, on_a_thread},
    sysctl, userns,
};

/// What to make. Nothing wanted is nothing made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Where to pin an ipc namespace.
    pub ipc: Option<&'a Path>,
    /// Where to pin a uts namespace, and the name of the host in it, of 64 bytes at most.
    pub uts: Option<(&'a Path, &'a str)>,
    /// The user namespace, pinned already, that the new ones are to belong to.
    pub owner: Option<Owner<'a>>,
    /// The network namespace, pinned already, in which the sysctls of the network are set.
    pub network: Option<&'a Path>,
    /// Sysctls, named as `sysctl(8)` does, and their values. The caller has seen to it that each is of
    /// a namespace that is named here.
    pub sysctls: &'a [(&'a str, &'a str)],
}

/// A user namespace that is pinned.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub path: &'a Path,
    /// The uid and the gid, outside of it, of its root.
    pub root: (u32, u32),
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
    let made = wanted.paths().try_for_each(|path| pin::place(path).map(|()| placed.push(path)));
    let made = made.and_then(|()| match wanted.owner {
        Some(owner) => make_within(owner, wanted, &sysctls),
        None => on_a_thread("namespaces", || make_on_this_thread(wanted, &sysctls)).flatten(),
    });
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

/// Somebody else makes them, and a thread of ours goes in to set what is to be set.
fn make_within(
    owner: Owner<'_>,
    wanted: &Wanted<'_>,
    sysctls: &[(PathBuf, &str)],
) -> io::Result<()> {
    let ipc = wanted.ipc.map(|path| (Kind::Ipc, path));
    let uts = wanted.uts.map(|(path, _)| (Kind::Uts, path));
    let all: Vec<_> = ipc.into_iter().chain(uts).collect();
    userns::make_within(owner.path, &all)?;
    on_a_thread("namespaces", || {
        for (kind, path) in &all {
            move_into_link_name_space(pin::open(path, *kind)?.as_fd(), None)?;
        }
        match set(wanted, sysctls) {
            // Since Linux 6.10 they are not the host's root's to write, but that of their owner.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let (uid, gid) = (Uid::from_raw(owner.root.0), Gid::from_raw(owner.root.1));
                set_thread_res_gid(gid, gid, gid)?;
                set_thread_res_uid(uid, uid, uid)?;
                sysctl::write(sysctls)
            }
            set => set,
        }
    })
    .flatten()
}

fn make_on_this_thread(wanted: &Wanted<'_>, sysctls: &[(PathBuf, &str)]) -> io::Result<()> {
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWIPC, wanted.ipc.is_some());
    flags.set(UnshareFlags::NEWUTS, wanted.uts.is_some());
    // SAFETY: only unsharing the descriptor table can harm other threads; these are others.
    unsafe { unshare_unsafe(flags) }.map_err(|e| naming("unshare", e.into()))?;
    set(wanted, sysctls)?;
    wanted.uts.map_or(Ok(()), |(path, _)| pin::own(Kind::Uts, path))?;
    wanted.ipc.map_or(Ok(()), |path| pin::own(Kind::Ipc, path))
}

/// In the namespaces of this thread, which ends with it.
fn set(wanted: &Wanted<'_>, sysctls: &[(PathBuf, &str)]) -> io::Result<()> {
    if let Some(network) = wanted.network {
        netns::enter(network).map_err(|e| naming("entering the network namespace", e))?;
    }
    if let Some((_, name)) = wanted.uts {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|e| naming("setting the host name", e.into()))?;
    }
    sysctl::write(sysctls)
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
    fn namespaces_that_belong_to_a_user_namespace_are_made_and_set_the_same() {
        as_root_in_own_mounts(|dir| {
            let (user, net) = (dir.join("ns/user"), dir.join("ns/net"));
            let (ipc, uts) = (dir.join("ns/ipc"), dir.join("ns/uts"));
            let map = vec![userns::Mapping { inside: 0, outside: 100_000, size: 65_536 }];
            userns::make(&user, &userns::Maps { uids: map.clone(), gids: map }).unwrap();
            let ping = [("net.ipv4.ping_group_range", "0 7")];
            netns::make_within(&user, &net, &ping).unwrap();
            let sysctls = [("kernel.shm_rmid_forced", "1")];
            let wanted = Wanted {
                ipc: Some(&ipc),
                uts: Some((&uts, "inside")),
                owner: Some(Owner { path: &user, root: (100_000, 100_000) }),
                sysctls: &sysctls,
                ..Wanted::default()
            };
            make(&wanted).unwrap();
            let range = || std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
            assert_eq!(netns::within(&net, range).unwrap().trim(), "0\t7");
            assert!(pin::is_pinned(&ipc, Kind::Ipc) && pin::is_pinned(&uts, Kind::Uts));
            for path in [&ipc, &uts, &net, &user] {
                pin::unmake(path).unwrap();
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
