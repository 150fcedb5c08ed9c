//! A container's config, read and made ready: what the preparer does before there is an init, and what
//! the init needs to know.

use std::os::{fd::OwnedFd, unix::net::UnixStream};

use oci_spec::runtime::{
    Hook, Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxSeccomp, Process, Spec,
};
use rustix::fs::{Mode, OFlags};
use sys::{
    cgroup::{Cgroup, Device, Layout},
    userns::Maps,
};

use super::{Wanted, namespaces::Namespaces, root::Tree, small};
use crate::{cgroups, confine, console, hooks, program::Failure};

pub struct Order<'a> {
    pub id: &'a str,
    pub spec: Spec,
    pub process: Process,
    pub cgroup: Option<Cgroup>,
    /// Connected, since its path is the host's.
    pub console: Option<UnixStream>,
    pub no_pivot: bool,
    pub namespaces: Namespaces,
    pub tree: Tree,
    wanted: &'a Wanted<'a>,
    maps: Maps,
}

impl<'a> Order<'a> {
    /// Makes the cgroup, takes hold of what is the host's, and sets the limits that are inherited.
    pub fn prepare(wanted: &'a Wanted<'a>) -> Result<Self, Failure> {
        let spec = Spec::load(wanted.bundle.config())
            .map_err(|e| Failure::of_runtime(format!("reading config.json: {e}")))?;
        small::refuse(&spec)?;
        let none = || Failure::of_runtime("the config has no process".to_owned());
        let process = spec.process().clone().ok_or_else(none)?;
        let linux = spec.linux().clone().unwrap_or_default();
        let maps = maps(&linux);
        let namespaces = Namespaces::open(&linux)?;
        let cgroup = make_cgroup(&linux, wanted.layout)?;
        let tree = Tree::prepare(&spec, wanted, cgroup.as_ref(), &namespaces)?;
        let console = wanted.console.map(console::connect).transpose();
        let console = console.map_err(Failure::on_the_way("going to send a terminal"))?;
        confine::limit(&process)?;
        let (id, no_pivot) = (wanted.id, wanted.no_pivot);
        Ok(Self { id, spec, process, cgroup, console, no_pivot, namespaces, tree, wanted, maps })
    }

    /// What the preparer does for an init that was just born.
    pub fn attend(&self, pid: u32) -> Result<(), Failure> {
        if self.namespaces.has_new_user() {
            self.maps.give_to(pid).map_err(Failure::on_the_way("mapping the user namespace"))?;
        }
        let Some(all) = self.spec.hooks() else { return Ok(()) };
        let state = self.state("creating", pid);
        hooks::run(all.prestart().as_deref(), &state)?;
        hooks::run(all.create_runtime().as_deref(), &state)
    }

    pub fn hooks(&self) -> bool {
        let any = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|all| !all.is_empty());
        self.spec
            .hooks()
            .as_ref()
            .is_some_and(|all| any(all.prestart()) || any(all.create_runtime()))
    }

    pub fn create_container_hooks(&self) -> Option<&[Hook]> {
        self.spec.hooks().as_ref().and_then(|all| all.create_container().as_deref())
    }

    pub fn state(&self, status: &str, pid: u32) -> String {
        hooks::state(self.id, &self.wanted.bundle.dir, &self.spec, status, Some(pid))
    }

    pub fn filter(&self) -> Option<LinuxSeccomp> {
        self.spec.linux().as_ref().and_then(|linux| linux.seccomp().clone())
    }

    /// The cgroup that the init is to be born into, so that it need not be moved. There is such a birth
    /// only on version 2 (Linux 5.7).
    pub fn born_into(&self, layout: &Layout) -> Result<Option<OwnedFd>, Failure> {
        let Some(cgroup) = self.cgroup.as_ref().filter(|_| layout.is_v2()) else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |(_, dir)| rustix::fs::open::<std::path::PathBuf>(dir, flags, Mode::empty());
        let opened = cgroup.directories().into_iter().next().map(open).transpose();
        opened.map_err(Failure::on_the_way("opening the container's cgroup"))
    }

    /// What the init does on version 1: a thread that moves itself makes nobody wait.
    pub fn join_cgroup(&self) -> Result<(), Failure> {
        let Some(cgroup) = self.cgroup.as_ref().filter(|_| !self.wanted.layout.is_v2()) else {
            return Ok(());
        };
        cgroup.join().map_err(Failure::on_the_way("joining the container's cgroup"))
    }
}

fn maps(linux: &Linux) -> Maps {
    let all = |maps: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
        maps.iter().flatten().map(super::mounts::mapping).collect()
    };
    Maps { uids: all(linux.uid_mappings()), gids: all(linux.gid_mappings()) }
}

fn make_cgroup(linux: &Linux, layout: &Layout) -> Result<Option<Cgroup>, Failure> {
    let Some(path) = linux.cgroups_path() else { return Ok(None) };
    let making = "making the container's cgroup";
    let cgroup = Cgroup::new(layout, path).map_err(Failure::on_the_way(making))?;
    cgroup.make().map_err(Failure::on_the_way(making))?;
    let Some(resources) = linux.resources() else { return Ok(Some(cgroup)) };
    let limits = cgroups::limits(resources);
    cgroup.apply(&limits).map_err(Failure::on_the_way("limiting the container's cgroup"))?;
    let rules: Vec<Device> = resources.devices().iter().flatten().map(device).collect();
    cgroup.rule_devices(&rules).map_err(Failure::on_the_way("ruling the container's devices"))?;
    Ok(Some(cgroup))
}

fn device(rule: &LinuxDeviceCgroup) -> Device {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        _ => 'a',
    };
    // No number, and one below zero, are all of them.
    let number = |number: Option<i64>| number.filter(|number| *number >= 0);
    Device {
        allow: rule.allow(),
        kind,
        major: number(rule.major()),
        minor: number(rule.minor()),
        access: rule.access().clone().unwrap_or_else(|| "rwm".to_owned()),
    }
}
