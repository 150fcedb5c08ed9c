//! User namespaces: who a pod's root is on the host, and whose files its files are.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use sys::userns::{Mapping, Maps};

use crate::{
    plan::{IdMapping, UserNamespace},
    pod::PodRecord,
};

/// The ids of a user namespace, as the kernel takes them.
pub(crate) fn maps(plan: &UserNamespace) -> Maps {
    let all = |maps: &[IdMapping]| maps.iter().map(mapping).collect();
    Maps { uids: all(&plan.uids), gids: all(&plan.gids) }
}

fn mapping(map: &IdMapping) -> Mapping {
    Mapping { inside: map.container, outside: map.host, size: map.length }
}

/// The pod's user namespace, for what is to join it.
pub(crate) fn joined(pod: &PodRecord) -> Option<oci::UserNamespace> {
    let user = pod.plan.namespaces.user.as_ref()?;
    let (uids, gids) = (mappings(&user.uids), mappings(&user.gids));
    Some(oci::UserNamespace { path: pod.userns.clone(), uids, gids })
}

pub(crate) fn mappings(maps: &[IdMapping]) -> Vec<oci::IdMapping> {
    let one = |map: &IdMapping| oci::IdMapping {
        host: map.host,
        container: map.container,
        length: map.length,
    };
    maps.iter().map(one).collect()
}

/// Lets the pod's root, who is nobody on the host, go through a folder to what it may have in it, and
/// nobody else: a runtime that is a program mounts a root filesystem by its path, as that root.
pub(crate) fn let_through(pod: &PodRecord, dir: &Path) -> io::Result<()> {
    let Some(user) = joined(pod) else { return Ok(()) };
    let (_, gid) = user.root();
    std::os::unix::fs::chown(dir, None, Some(gid))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o710))
}

/// Gives a file of the pod's to its root, who may change it as in any pod.
pub(crate) fn give(pod: &PodRecord, path: &Path) -> io::Result<()> {
    let Some(user) = joined(pod) else { return Ok(()) };
    let (uid, gid) = user.root();
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_means_the_same_to_the_kernel_and_to_a_runtime() {
        let map = IdMapping { container: 0, host: 65_536, length: 7 };
        let user = UserNamespace { uids: vec![map], gids: vec![map] };
        assert_eq!(maps(&user).uids, [Mapping { inside: 0, outside: 65_536, size: 7 }]);
        let [oci] = mappings(&user.gids)[..] else { panic!("one") };
        assert_eq!((oci.container, oci.host, oci.length), (0, 65_536, 7));
    }
}
