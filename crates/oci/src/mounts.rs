//! What is mounted where in a container, and in which order.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as SpecMount;

use crate::{
    paths::{clean, is_at_or_below},
    plan::{Mount, Namespace, Plan, Propagation},
    rejected::Rejected,
};

/// A mount that a container has unless the request puts something else there: destination, type,
/// source, options.
type Standard = (&'static str, &'static str, &'static str, &'static [&'static str]);

pub(crate) const PROC: Standard = ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]);
pub(crate) const DEV: Standard =
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]);
const PTS: Standard = (
    "/dev/pts",
    "devpts",
    "devpts",
    &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
);
const SHM: Standard =
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]);
pub(crate) const MQUEUE: Standard =
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
pub(crate) const SYS: Standard = ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
/// The kernel lets nobody mount sysfs whose user namespace does not own the network namespace.
pub(crate) const SYS_OF_HOST: Standard =
    ("/sys", "bind", "/sys", &["rbind", "rro", "nosuid", "nodev", "noexec"]);
const CGROUP: Standard =
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);

/// Where no volume of an image may be: a file system there that is not the kernel's makes a runtime
/// write its settings into an image's file (CVE-2019-16884), or hides a device.
const NOT_FOR_IMAGES: [&str; 3] = ["/proc", "/sys", "/dev"];

pub(crate) struct Mounts {
    pub list: Vec<SpecMount>,
    /// What the root's own mount must be for mounts to come through.
    pub root_propagation: Option<&'static str>,
}

pub(crate) fn of(plan: &Plan) -> Result<Mounts, Rejected> {
    let mut bound = asked(plan)?;
    // Depth first, so that nothing is covered by what is above it; else the request's order.
    bound.sort_by_key(|(place, _)| place.matches('/').count());
    let is_taken = |place: &str| {
        let covers =
            |other: &str| other == place || other == "/dev" && is_at_or_below(place, other);
        bound.iter().any(|(other, _)| covers(other))
    };
    let mut list: Vec<SpecMount> = standard(plan)
        .into_iter()
        .filter(|(place, ..)| !is_taken(place))
        .map(|of| standard_mount(of, plan.security.privileged))
        .collect();
    let widest = bound.iter().map(|(_, mount)| mount.propagation).max_by_key(|p| rank(*p));
    list.extend(bound.into_iter().map(|(place, mount)| bind(&place, &mount)));
    Ok(Mounts { list, root_propagation: widest.and_then(root_propagation) })
}

fn standard(plan: &Plan) -> [Standard; 7] {
    let foreign = plan.namespaces.network == Namespace::Host && plan.namespaces.user.is_some();
    let sys = if foreign { SYS_OF_HOST } else { SYS };
    [PROC, DEV, PTS, SHM, MQUEUE, sys, CGROUP]
}

/// What is read-only of the kernel's file systems is writable for the privileged.
pub(crate) fn standard_mount(of: Standard, privileged: bool) -> SpecMount {
    let (place, kind, source, options) = of;
    let option = |option: &&str| match *option {
        "ro" if privileged => "rw".to_owned(),
        "rro" if privileged => "rw".to_owned(),
        option => option.to_owned(),
    };
    let mut mount = SpecMount::default();
    mount
        .set_destination(place.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(option).collect()));
    mount
}

/// All bind mounts, by their clean place: the request's, then the pod's files and the image's
/// volumes where the request leaves room.
fn asked(plan: &Plan) -> Result<Vec<(String, Mount)>, Rejected> {
    let mut all = Vec::new();
    for (at, mount) in plan.mounts.iter().enumerate() {
        let field = format!("config.mounts[{at}]");
        all.push((place(mount, &field)?, checked(mount, &field, plan)?));
    }
    let by_request: Vec<String> = all.iter().map(|(place, _)| place.clone()).collect();
    for mount in pod_files(plan) {
        let place = place(&mount, "pod file")?;
        all.extend(Some((place, mount)).filter(|(place, _)| !by_request.contains(place)));
    }
    for mount in &plan.image_volumes {
        let field = "image.config.volumes";
        let place = place(mount, field)?;
        if NOT_FOR_IMAGES.iter().any(|above| is_at_or_below(&place, above)) {
            return Err(Rejected::new(field, format!("the image has a volume at {place}")));
        }
        let taken = all.iter().any(|(other, _)| *other == place);
        all.extend(Some((place, mount.clone())).filter(|_| !taken));
    }
    Ok(all)
}

fn place(mount: &Mount, field: &str) -> Result<String, Rejected> {
    let place = clean(&mount.container_path);
    if place == "/" || place.contains('\0') {
        let why = format!("{:?} is no place to mount at", mount.container_path);
        return Err(Rejected::new(format!("{field}.container_path"), why));
    }
    if !mount.host_path.is_absolute() {
        let why = format!("{:?} is not an absolute path", mount.host_path);
        return Err(Rejected::new(format!("{field}.host_path"), why));
    }
    Ok(place)
}

/// What Kubernetes asks of a mount that is read-only all the way down, and of options.
fn checked(mount: &Mount, field: &str, plan: &Plan) -> Result<Mount, Rejected> {
    let why = match mount {
        Mount { recursive_read_only: false, .. } => None,
        // The first word is a constant of CRI, which the kubelet looks for.
        _ if !plan.node.recursive_read_only => Some("RROUnsupported: this runtime cannot do it"),
        Mount { readonly: false, .. } => Some("needs readonly"),
        Mount { propagation: Propagation::Private, .. } => None,
        _ => Some("needs private propagation"),
    };
    if let Some(why) = why {
        return Err(Rejected::new(format!("{field}.recursive_read_only"), why));
    }
    match mount.options.iter().find(|o| !["noexec", "nodev", "nosuid"].contains(&o.as_str())) {
        Some(other) => {
            let why = format!("{other:?} is not noexec, nodev or nosuid");
            Err(Rejected::new(format!("{field}.mount_options"), why))
        }
        None => Ok(mount.clone()),
    }
}

/// The pod's own files. In a user namespace they belong to its root already.
fn pod_files(plan: &Plan) -> Vec<Mount> {
    let file = |place: &str, path: &Option<PathBuf>| {
        Some(Mount {
            container_path: place.to_owned(),
            host_path: path.clone()?,
            readonly: plan.root.readonly,
            ..Mount::default()
        })
    };
    let files = &plan.pod_files;
    let mut all: Vec<Mount> = [
        file("/etc/hostname", &files.hostname),
        file("/etc/hosts", &files.hosts),
        file("/etc/resolv.conf", &files.resolv_conf),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.extend(files.shm.as_deref().map(shm));
    all
}

fn shm(path: &Path) -> Mount {
    let container_path = SHM.0.to_owned();
    Mount { container_path, host_path: path.to_owned(), ..Mount::default() }
}

fn bind(place: &str, mount: &Mount) -> SpecMount {
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = match mount {
        Mount { recursive_read_only: true, .. } => "rro",
        Mount { readonly: true, .. } => "ro",
        _ => "rw",
    };
    let mut options: Vec<String> = ["rbind", propagation, access].map(str::to_owned).into();
    options.extend(mount.options.iter().cloned());
    let mut bind = SpecMount::default();
    bind.set_destination(place.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(mount.host_path.clone()))
        .set_options(Some(options));
    bind
}

fn rank(propagation: Propagation) -> u8 {
    match propagation {
        Propagation::Private => 0,
        Propagation::HostToContainer => 1,
        Propagation::Bidirectional => 2,
    }
}

/// Private is what runtimes do by themselves.
fn root_propagation(widest: Propagation) -> Option<&'static str> {
    match widest {
        Propagation::Private => None,
        Propagation::HostToContainer => Some("rslave"),
        Propagation::Bidirectional => Some("rshared"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{mount, plan};

    fn places(plan: &Plan) -> Vec<String> {
        let text = |mount: &SpecMount| mount.destination().to_string_lossy().into_owned();
        of(plan).unwrap().list.iter().map(text).collect()
    }

    #[test]
    fn a_mount_of_the_request_takes_the_place_of_the_pods_and_of_the_standard_one() {
        let mut plan = plan();
        plan.mounts = vec![mount("/etc//hosts", "/k/hosts"), mount("/dev/shm/", "/k/shm")];
        let list = of(&plan).unwrap().list;
        for (place, source) in [("/etc/hosts", "/k/hosts"), ("/dev/shm", "/k/shm")] {
            let sources: Vec<_> = list
                .iter()
                .filter(|mount| mount.destination() == Path::new(place))
                .map(|mount| mount.source().clone().unwrap())
                .collect();
            assert_eq!(sources, [PathBuf::from(source)]);
        }
    }

    #[test]
    fn mounts_are_in_the_order_of_their_depth_and_else_of_the_request() {
        let mut plan = plan();
        plan.pod_files = crate::plan::PodFiles::default();
        plan.mounts = ["/z/y/x", "/b", "/a", "/z"].map(|place| mount(place, "/h")).into();
        assert_eq!(places(&plan)[7..], ["/b", "/a", "/z", "/z/y/x"]);
    }

    #[test]
    fn the_hosts_dev_comes_with_all_that_is_in_it() {
        let mut plan = plan();
        plan.mounts = vec![mount("/dev", "/dev")];
        let places = places(&plan);
        assert!(!places.iter().any(|place| place == "/dev/pts" || place == "/dev/mqueue"));
        assert_eq!(places.iter().filter(|place| *place == "/dev").count(), 1);
        assert!(places.contains(&"/dev/shm".to_owned()), "the pod's stays");
    }

    #[test]
    fn no_volume_of_an_image_hides_a_file_system_of_the_kernel() {
        for place in ["/proc", "/proc/self", "/sys", "/../dev/x", "/a/../proc", "/", "x/../.."] {
            let mut plan = plan();
            plan.image_volumes = vec![mount(place, "/v")];
            let error = of(&plan).err().unwrap();
            assert!(error.field().starts_with("image.config.volumes"), "{place}");
        }
        let mut plan = plan();
        plan.image_volumes = vec![mount("../../../etc/x", "/v"), mount("/data", "/v")];
        plan.mounts = vec![mount("/data", "/k")];
        assert!(places(&plan).contains(&"/etc/x".to_owned()));
        assert_eq!(places(&plan).iter().filter(|place| *place == "/data").count(), 1);
    }

    #[test]
    fn read_only_all_the_way_down_needs_read_only_private_and_a_runtime_that_can() {
        let rejected = |mount: &Mount, able: bool| {
            let mut plan = plan();
            plan.mounts = vec![mount.clone()];
            plan.node.recursive_read_only = able;
            of(&plan).err().map(|error| error.to_string())
        };
        let good = Mount { recursive_read_only: true, readonly: true, ..mount("/m", "/h") };
        assert_eq!(rejected(&good, true), None);
        assert!(rejected(&good, false).unwrap().contains("RROUnsupported"));
        assert!(rejected(&Mount { readonly: false, ..good.clone() }, true).is_some());
        for propagation in [Propagation::HostToContainer, Propagation::Bidirectional] {
            assert!(rejected(&Mount { propagation, ..good.clone() }, true).is_some());
        }
    }

    #[test]
    fn the_root_propagates_as_its_widest_mount_does() {
        use Propagation::{Bidirectional, HostToContainer, Private};
        let table: [(&[Propagation], _); 4] = [
            (&[], None),
            (&[Private], None),
            (&[HostToContainer, Private], Some("rslave")),
            (&[Bidirectional, HostToContainer], Some("rshared")),
        ];
        for (asked, expected) in table {
            let mut plan = plan();
            let one = |propagation: &Propagation| Mount {
                propagation: *propagation,
                ..mount("/m", "/h")
            };
            plan.mounts = asked.iter().map(one).collect();
            assert_eq!(of(&plan).unwrap().root_propagation, expected);
        }
    }

    #[test]
    fn a_mount_on_the_root_or_from_nowhere_is_rejected() {
        for (place, source) in [("/", "/h"), ("", "/h"), ("/a/..", "/h"), ("/m", "h"), ("/m", "")] {
            let mut plan = plan();
            plan.mounts = vec![mount(place, source)];
            assert!(of(&plan).is_err(), "{place:?} {source:?}");
        }
    }
}
