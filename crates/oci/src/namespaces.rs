//! Which namespaces a container is in.

use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType,
};

use crate::{
    plan::{IdMapping, Namespace, Namespaces, UserNamespace},
    rejected::Rejected,
};

/// A namespace that is not in the list is the host's.
pub(crate) fn of(asked: &Namespaces, own_cgroup: bool) -> Result<Vec<LinuxNamespace>, Rejected> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let mut all = vec![namespace(Mount, None)];
    let four = [(Network, &asked.network), (Ipc, &asked.ipc), (Uts, &asked.uts), (Pid, &asked.pid)];
    for (kind, from) in four {
        match from {
            Namespace::Own => all.push(namespace(kind, None)),
            Namespace::Join(path) => all.push(namespace(kind, Some(path.clone()))),
            Namespace::Host => {}
        }
    }
    if own_cgroup {
        all.push(namespace(Cgroup, None));
    }
    if let Some(user) = &asked.user {
        check_mappings(user)?;
        all.push(namespace(User, user.path.clone()));
    }
    Ok(all)
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}

/// One mapping, from the container's root on, the same for users and groups: what Kubernetes
/// promises, and what a root filesystem can be shifted by.
fn check_mappings(user: &UserNamespace) -> Result<(), Rejected> {
    let field = "config.linux.security_context.namespace_options.userns_options";
    let why = match (&user.uids[..], &user.gids[..]) {
        ([uids], [gids]) if uids != gids => "uids and gids must be mapped alike",
        ([uids], [_]) if uids.container != 0 => "the container's root must be mapped",
        ([uids], [_]) if uids.length == 0 => "the mapping is empty",
        ([_], [_]) => return Ok(()),
        _ => "there must be one mapping of uids and one of gids",
    };
    Err(Rejected::new(field, why))
}

pub(crate) fn map(linux: &mut Linux, user: Option<&UserNamespace>) {
    if let Some(user) = user {
        linux.set_uid_mappings(mappings(&user.uids)).set_gid_mappings(mappings(&user.gids));
    }
}

/// `None` if there are none.
fn mappings(of: &[IdMapping]) -> Option<Vec<LinuxIdMapping>> {
    let one = |of: &IdMapping| {
        LinuxIdMappingBuilder::default()
            .host_id(of.host)
            .container_id(of.container)
            .size(of.length)
            .build()
            .expect("every field has a default")
    };
    Some(of.iter().map(one).collect()).filter(|all: &Vec<_>| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_has_one_mapping_and_it_maps_root() {
        let good = IdMapping { host: 65536, container: 0, length: 65536 };
        let unrooted = IdMapping { container: 1, ..good };
        let empty = IdMapping { length: 0, ..good };
        let other = IdMapping { host: 1, ..good };
        let is_good = |uids: &[IdMapping], gids: &[IdMapping]| {
            let user = UserNamespace { path: None, uids: uids.into(), gids: gids.into() };
            check_mappings(&user).is_ok()
        };
        assert!(is_good(&[good], &[good]));
        assert!(!is_good(&[good, good], &[good, good]) && !is_good(&[], &[]));
        assert!(!is_good(&[unrooted], &[unrooted]) && !is_good(&[empty], &[empty]));
        assert!(!is_good(&[good], &[other]));
    }
}
