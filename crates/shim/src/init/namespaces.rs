//! Which namespaces a container is in: those that the preparer enters for its child to be born there,
//! those that are new, and what it takes to be root in one's own.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};
use rustix::thread::{
    Gid, LinkNameSpaceType, Uid, UnshareFlags, move_into_link_name_space, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

use crate::program::Failure;

pub struct Namespaces {
    /// To be entered, the user namespace last: after that there is nothing else that we may enter.
    joined: Vec<(LinuxNamespaceType, OwnedFd)>,
    new: Vec<LinuxNamespaceType>,
}

impl Namespaces {
    /// Opens those of others. The paths are the host's.
    pub fn open(linux: &Linux) -> Result<Self, Failure> {
        let (mut joined, mut new) = (Vec::new(), Vec::new());
        for namespace in linux.namespaces().iter().flatten() {
            match namespace.path() {
                None => new.push(namespace.typ()),
                Some(path) => {
                    let opened = File::open(path).map(OwnedFd::from);
                    joined.push((namespace.typ(), opened.map_err(|e| named(namespace, &e))?));
                }
            }
        }
        joined.sort_by_key(|(kind, _)| *kind == LinuxNamespaceType::User);
        let all = Self { joined, new };
        if !all.new.contains(&LinuxNamespaceType::Mount) {
            let why = "the config asks for no mount namespace of the container's own";
            return Err(Failure::of_runtime(why.to_owned()));
        }
        Ok(all)
    }

    pub fn has_new_user(&self) -> bool {
        self.new.contains(&LinuxNamespaceType::User)
    }

    pub fn has_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains(&kind)
    }

    /// Whether the container's root is not the host's.
    pub fn has_user(&self) -> bool {
        self.has_new_user() || self.joins(LinuxNamespaceType::User)
    }

    fn joins(&self, kind: LinuxNamespaceType) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Enters those of others. With `return_` it can be gone back on.
    pub fn enter(&self, return_: bool) -> Result<Own, Failure> {
        let mut own = Own(Vec::new());
        if return_ && self.joins(LinuxNamespaceType::User) {
            let why = "hooks of the host cannot be run for a container that joins a user namespace";
            return Err(Failure::of_runtime(why.to_owned()));
        }
        for (kind, namespace) in &self.joined {
            if return_ {
                let here = File::open(format!("/proc/self/ns/{}", name(*kind)));
                own.0.push(here.map_err(Failure::on_the_way("opening our own namespace"))?.into());
            }
            move_into_link_name_space(namespace.as_fd(), Some(link(*kind)))
                .map_err(|e| Failure::of_runtime(format!("joining a {kind} namespace: {e}")))?;
        }
        Ok(own)
    }

    /// What `clone` makes: a process cannot move into these by itself.
    pub fn at_birth(&self) -> libc::c_int {
        let mut flags = 0;
        for (kind, flag) in [
            (LinuxNamespaceType::User, libc::CLONE_NEWUSER),
            (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
        ] {
            flags |= if self.new.contains(&kind) { flag } else { 0 };
        }
        flags
    }

    /// Makes the others. It is the init that does it, after it has joined its cgroup: that is the root
    /// of its cgroup namespace.
    pub fn unshare(&self) -> Result<(), Failure> {
        let mut flags = UnshareFlags::empty();
        for (kind, flag) in [
            (LinuxNamespaceType::Mount, UnshareFlags::NEWNS),
            (LinuxNamespaceType::Network, UnshareFlags::NEWNET),
            (LinuxNamespaceType::Ipc, UnshareFlags::NEWIPC),
            (LinuxNamespaceType::Uts, UnshareFlags::NEWUTS),
            (LinuxNamespaceType::Cgroup, UnshareFlags::NEWCGROUP),
            (LinuxNamespaceType::Time, UnshareFlags::NEWTIME),
        ] {
            flags.set(flag, self.new.contains(&kind));
        }
        // SAFETY: there is one thread, and the descriptor table is not among what is unshared.
        unsafe { unshare_unsafe(flags) }.map_err(Failure::on_the_way("making namespaces"))
    }

    /// In a user namespace, we have been nobody until now: what nobody makes can be given to nobody.
    pub fn become_root(&self) -> Result<(), Failure> {
        if !self.has_user() {
            return Ok(());
        }
        let become_it = || {
            set_thread_groups(&[])?;
            set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
            set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        };
        become_it().map_err(Failure::on_the_way("becoming root in the user namespace"))
    }
}

/// The preparer's own namespaces, if it shall go back to them.
pub struct Own(Vec<OwnedFd>);

impl Own {
    pub fn leave(&self) -> Result<(), Failure> {
        self.0.iter().try_for_each(|own| {
            let back = move_into_link_name_space(own.as_fd(), None);
            back.map_err(Failure::on_the_way("going back to our own namespace"))
        })
    }
}

fn named(namespace: &LinuxNamespace, error: &std::io::Error) -> Failure {
    let path = namespace.path().as_deref().unwrap_or_else(|| "".as_ref()).display();
    Failure::of_runtime(format!("opening the {} namespace {path}: {error}", namespace.typ()))
}

/// What `/proc` calls it.
fn name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Time => "time",
    }
}

/// The kind must be what the config says, whatever file is there.
fn link(kind: LinuxNamespaceType) -> LinkNameSpaceType {
    match kind {
        LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
        LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        LinuxNamespaceType::User => LinkNameSpaceType::User,
        LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
        LinuxNamespaceType::Network => LinkNameSpaceType::Network,
        LinuxNamespaceType::Time => LinkNameSpaceType::Time,
    }
}
