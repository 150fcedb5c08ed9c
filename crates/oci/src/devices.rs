//! Which device nodes a container has, and which devices it may open.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::{
    plan::{Device, DeviceKind, Plan},
    rejected::Rejected,
};

/// Character devices that every container may use: null, zero, full, random, urandom, tty,
/// console, ptmx, and all of pts. The runtime makes their nodes.
const STANDARD: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Places in /dev that are the runtime's to fill.
const OF_THE_RUNTIME: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
];

pub(crate) struct Devices {
    pub nodes: Vec<LinuxDevice>,
    pub rules: Vec<LinuxDeviceCgroup>,
}

pub(crate) fn of(plan: &Plan) -> Result<Devices, Rejected> {
    let mut rules = standard_rules();
    for (at, device) in plan.devices.iter().enumerate() {
        let rule = rule(device).map_err(|why| Rejected::new(format!("config.devices[{at}]"), why));
        rules.push(rule?);
    }
    let mut nodes: Vec<LinuxDevice> = plan.devices.iter().map(node).collect();
    if plan.security.privileged {
        rules = vec![everything(true)];
        // Those of the request stay where the request has them.
        let free = |device: &&Device| {
            let path = &device.container_path;
            !OF_THE_RUNTIME.iter().any(|standard| path.as_os_str() == *standard)
                && !plan.devices.iter().any(|asked| asked.container_path == *path)
        };
        nodes.extend(plan.node.devices.iter().filter(free).map(node));
    }
    Ok(Devices { nodes, rules })
}

/// Nothing but the standard ones.
pub(crate) fn standard_rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![everything(false)];
    rules.extend(STANDARD.map(|(major, minor)| {
        let mut rule = everything(true);
        rule.set_typ(Some(LinuxDeviceType::C)).set_major(Some(major)).set_minor(minor);
        rule
    }));
    rules
}

pub(crate) fn allow(mut limits: LinuxResources, rules: Vec<LinuxDeviceCgroup>) -> LinuxResources {
    limits.set_devices(Some(rules));
    limits
}

fn everything(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(None)
        .set_major(None)
        .set_minor(None)
        .set_access(Some("rwm".to_owned()));
    rule
}

fn rule(device: &Device) -> Result<LinuxDeviceCgroup, String> {
    let path = device.container_path.to_string_lossy();
    if !path.starts_with("/dev/") || path.split('/').any(|part| part == "..") {
        return Err(format!("{path} is not a place in /dev"));
    }
    let asked = &device.permissions;
    if !asked.chars().all(|letter| "rwm".contains(letter)) {
        return Err(format!("permissions {asked:?} have other letters than r, w and m"));
    }
    // Its node is made by a process that is already bound by the rule.
    let access = match asked.as_str() {
        "" => "rwm".to_owned(),
        asked if asked.contains('m') => asked.to_owned(),
        asked => format!("{asked}m"),
    };
    let mut rule = everything(true);
    rule.set_typ(Some(kind(device)))
        .set_major(Some(device.major))
        .set_minor(Some(device.minor))
        .set_access(Some(access));
    Ok(rule)
}

fn node(device: &Device) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(device.container_path.clone())
        .set_typ(kind(device))
        .set_major(device.major)
        .set_minor(device.minor)
        .set_file_mode(Some(device.mode & 0o777))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    node
}

fn kind(device: &Device) -> LinuxDeviceType {
    match device.kind {
        DeviceKind::Character => LinuxDeviceType::C,
        DeviceKind::Block => LinuxDeviceType::B,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{device, plan};

    #[test]
    fn a_device_may_be_used_as_it_was_asked_for_and_no_other_may() {
        let mut plan = plan();
        plan.devices = vec![device("/dev/fuse", 10, 229, "rw")];
        let devices = of(&plan).unwrap();
        assert!(!devices.rules[0].allow() && devices.rules[0].major().is_none());
        let last = devices.rules.last().unwrap();
        assert_eq!((last.major(), last.minor()), (Some(10), Some(229)));
        assert_eq!(last.access().as_deref(), Some("rwm"), "its node is to be made too");
        assert_eq!(devices.nodes.len(), 1);
    }

    #[test]
    fn a_device_out_of_dev_or_with_strange_permissions_is_rejected() {
        for (path, permissions) in [("/etc/x", "r"), ("/dev/../etc/x", "r"), ("/dev/x", "rx")] {
            let mut plan = plan();
            plan.devices = vec![device(path, 1, 3, permissions)];
            assert_eq!(of(&plan).err().unwrap().field(), "config.devices[0]", "{path}");
        }
    }

    #[test]
    fn the_privileged_have_the_nodes_devices_but_each_place_once() {
        let mut plan = plan();
        plan.security.privileged = true;
        plan.devices = vec![device("/dev/sda", 10, 229, "rw")];
        plan.node.devices =
            ["/dev/null", "/dev/sda", "/dev/sdb"].map(|path| device(path, 8, 0, "")).into();
        let devices = of(&plan).unwrap();
        let places: Vec<_> = devices.nodes.iter().map(|n| (n.path().to_str(), n.major())).collect();
        assert_eq!(places, [(Some("/dev/sda"), 10), (Some("/dev/sdb"), 8)]);
        assert_eq!(devices.rules, [everything(true)]);
    }
}
