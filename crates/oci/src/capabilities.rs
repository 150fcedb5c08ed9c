//! Which capabilities a process gets: Kubernetes' default set, what is added and dropped, and
//! never more than the host has.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::{
    config::Warning,
    plan::{Node, Security},
    rejected::Rejected,
};

use Capability::*;

/// What a container has if it asks for nothing.
const DEFAULT: [Capability; 14] = [
    AuditWrite,
    Chown,
    DacOverride,
    Fowner,
    Fsetid,
    Kill,
    Mknod,
    NetBindService,
    NetRaw,
    Setfcap,
    Setgid,
    Setpcap,
    Setuid,
    SysChroot,
];

/// All capabilities, by their numbers in capability.h.
const BY_NUMBER: [Capability; 41] = [
    Chown,
    DacOverride,
    DacReadSearch,
    Fowner,
    Fsetid,
    Kill,
    Setgid,
    Setuid,
    Setpcap,
    LinuxImmutable,
    NetBindService,
    NetBroadcast,
    NetAdmin,
    NetRaw,
    IpcLock,
    IpcOwner,
    SysModule,
    SysRawio,
    SysChroot,
    SysPtrace,
    SysPacct,
    SysAdmin,
    SysBoot,
    SysNice,
    SysResource,
    SysTime,
    SysTtyConfig,
    Mknod,
    Lease,
    AuditWrite,
    AuditControl,
    Setfcap,
    MacOverride,
    MacAdmin,
    Syslog,
    WakeAlarm,
    BlockSuspend,
    AuditRead,
    Perfmon,
    Bpf,
    CheckpointRestore,
];

const FIELD: &str = "config.linux.security_context.capabilities";

/// The capabilities of a mask, such as `CapBnd` in /proc/self/status.
pub fn from_mask(mask: u64) -> Vec<Capability> {
    let is_set = |(bit, _): &(usize, &Capability)| mask & (1 << bit) != 0;
    BY_NUMBER.iter().enumerate().filter(is_set).map(|(_, capability)| *capability).collect()
}

/// What a process gets.
pub(crate) struct Sets {
    /// Bounding, permitted and effective.
    pub all: Capabilities,
    /// Ambient, for which the kernel wants them inheritable too.
    pub ambient: Capabilities,
}

impl Sets {
    pub(crate) fn none() -> Self {
        Self { all: Capabilities::new(), ambient: Capabilities::new() }
    }

    /// Nothing is inheritable that was not asked for by name (CVE-2022-24769).
    pub(crate) fn into_spec(self) -> LinuxCapabilities {
        let mut spec = LinuxCapabilities::default();
        spec.set_bounding(Some(self.all.clone()))
            .set_permitted(Some(self.all.clone()))
            .set_effective(Some(self.all))
            .set_inheritable(Some(self.ambient.clone()))
            .set_ambient(Some(self.ambient));
        spec
    }
}

pub(crate) fn of(
    security: &Security,
    node: &Node,
    warnings: &mut Vec<Warning>,
) -> Result<Sets, Rejected> {
    let asked = &security.capabilities;
    let add = parse(&asked.add, "add_capabilities")?;
    let drop = parse(&asked.drop, "drop_capabilities")?;
    let ambient = parse(&asked.ambient, "add_ambient_capabilities")?;
    let host: Capabilities = node.capabilities.iter().copied().collect();
    if security.privileged {
        return Ok(Sets { all: host, ambient: Capabilities::new() });
    }
    let mut all: Capabilities = DEFAULT.into_iter().filter(|c| host.contains(c)).collect();
    if add.contains(&Asked::All) {
        all = host.clone();
    }
    if drop.contains(&Asked::All) {
        all.clear();
    }
    let added = clip(&add, &host, "add_capabilities", warnings);
    all.extend(added);
    all.retain(|one| !drop.contains(&Asked::One(*one)));
    let ambient = clip(&ambient, &host, "add_ambient_capabilities", warnings);
    all.extend(&ambient);
    Ok(Sets { all, ambient })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    All,
    One(Capability),
}

fn parse(names: &[String], field: &str) -> Result<Vec<Asked>, Rejected> {
    let parse_one = |(at, name): (usize, &String)| {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Asked::All);
        }
        let known: Option<Capability> = upper.trim_start_matches("CAP_").parse().ok();
        known.map(Asked::One).ok_or_else(|| {
            Rejected::new(format!("{FIELD}.{field}[{at}]"), format!("no capability {name:?}"))
        })
    };
    names.iter().enumerate().map(parse_one).collect()
}

/// Those that the host has; of the others a warning is given.
fn clip(
    asked: &[Asked],
    host: &Capabilities,
    field: &str,
    warnings: &mut Vec<Warning>,
) -> Capabilities {
    let mut have = Capabilities::new();
    for one in asked {
        match one {
            Asked::One(one) if host.contains(one) => {
                have.insert(*one);
            }
            Asked::One(one) => warnings.push(Warning::new(
                format!("{FIELD}.{field}"),
                format!("left out CAP_{one}, which this node does not have itself"),
            )),
            Asked::All => {}
        }
    }
    have
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::CapabilityAsk;

    fn sets(add: &[&str], drop: &[&str], privileged: bool) -> Capabilities {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let capabilities = CapabilityAsk { add: owned(add), drop: owned(drop), ambient: vec![] };
        let security = Security { privileged, capabilities, ..Security::default() };
        of(&security, &crate::tests::node(), &mut Vec::new()).unwrap().all
    }

    #[test]
    fn names_are_read_with_and_without_their_prefix_and_in_any_case() {
        for name in ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin"] {
            assert!(sets(&[name], &[], false).contains(&NetAdmin), "{name}");
        }
    }

    #[test]
    fn what_is_dropped_is_gone_and_what_is_added_survives_dropping_all() {
        assert!(!sets(&[], &["CHOWN"], false).contains(&Chown));
        assert_eq!(sets(&["CHOWN"], &["all"], false), Capabilities::from([Chown]));
        let but_one = sets(&["ALL"], &["CHOWN"], false);
        assert!(but_one.contains(&SysAdmin) && !but_one.contains(&Chown));
        assert!(sets(&["ALL"], &["ALL"], false).is_empty());
    }

    #[test]
    fn the_privileged_have_all_that_the_host_has_and_nobody_has_more() {
        let host: Capabilities = crate::tests::node().capabilities.into_iter().collect();
        assert!(!host.contains(&SysResource), "the test's node lacks one");
        assert_eq!(sets(&[], &["ALL"], true), host);
        assert_eq!(sets(&["ALL", "SYS_RESOURCE"], &[], false), host);
    }

    #[test]
    fn an_unknown_name_is_rejected_by_its_place() {
        let ask = CapabilityAsk { drop: vec!["ALL".into(), "FLY".into()], ..Default::default() };
        let security = Security { capabilities: ask, ..Security::default() };
        let error = of(&security, &crate::tests::node(), &mut Vec::new()).err().unwrap();
        assert_eq!(error.field(), format!("{FIELD}.drop_capabilities[1]"));
    }

    #[test]
    fn what_the_host_lacks_is_left_out_with_a_warning() {
        let ask = CapabilityAsk { add: vec!["SYS_RESOURCE".into()], ..Default::default() };
        let security = Security { capabilities: ask, ..Security::default() };
        let mut warnings = Vec::new();
        of(&security, &crate::tests::node(), &mut warnings).ok().unwrap();
        assert!(warnings[0].what.contains("CAP_SYS_RESOURCE"), "{warnings:?}");
    }

    #[test]
    fn nothing_is_inheritable_but_what_is_asked_to_be_ambient() {
        let ask = CapabilityAsk { ambient: vec!["NET_ADMIN".into()], ..Default::default() };
        for (ask, expected) in
            [(ask, Capabilities::from([NetAdmin])), (CapabilityAsk::default(), Capabilities::new())]
        {
            let security = Security { capabilities: ask, ..Security::default() };
            let sets = of(&security, &crate::tests::node(), &mut Vec::new()).ok().unwrap();
            let spec = sets.into_spec();
            assert_eq!(spec.inheritable().as_ref(), Some(&expected));
            assert_eq!(spec.ambient().as_ref(), Some(&expected));
            assert!(spec.permitted().as_ref().unwrap().is_superset(&expected));
        }
    }

    #[test]
    fn a_mask_names_capabilities_by_their_bits() {
        assert_eq!(from_mask(1 << 21 | 1), [Chown, SysAdmin]);
        assert_eq!(from_mask(u64::MAX).len(), 41);
        let all: Capabilities = from_mask(u64::MAX).into_iter().collect();
        assert_eq!(all.len(), 41, "each once");
    }
}
