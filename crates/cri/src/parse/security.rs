//! The parts of a request that pods and containers have in common: resources, profiles, ids.

use cri_proto::v1;
use pods::plan::{IdMapping, Profile, Resources, Selinux, Sharing, UserNamespace};

use super::{Rejected, rejected};

pub(crate) fn resources(
    given: v1::LinuxContainerResources,
    field: &str,
) -> Result<Resources, Rejected> {
    let not_negative = |number: i64, name: &str| match number {
        0.. => Ok(number),
        _ => Err(rejected(format!("{field}.{name}"), format!("{number} is below zero"))),
    };
    if !(-1000..=1000).contains(&given.oom_score_adj) {
        return Err(rejected(
            format!("{field}.oom_score_adj"),
            format!("{} is not from -1000 to 1000", given.oom_score_adj),
        ));
    }
    Ok(Resources {
        cpu_period: not_negative(given.cpu_period, "cpu_period")?,
        cpu_quota: given.cpu_quota,
        cpu_shares: not_negative(given.cpu_shares, "cpu_shares")?,
        memory: given.memory_limit_in_bytes,
        memory_swap: given.memory_swap_limit_in_bytes,
        oom_score_adj: given.oom_score_adj,
        cpuset_cpus: given.cpuset_cpus,
        cpuset_mems: given.cpuset_mems,
        hugepages: given.hugepage_limits.into_iter().map(|it| (it.page_size, it.limit)).collect(),
        unified: given.unified,
    })
}

/// A user namespace that is asked for. Kubernetes promises one mapping, from root on, the same for
/// users and groups (KEP-127), and a root filesystem can be shifted by no other.
pub(super) fn user_namespace(
    given: Option<v1::UserNamespace>,
    field: &str,
) -> Result<Option<UserNamespace>, Rejected> {
    let field = format!("{field}.userns_options");
    let Some(given) = given else { return Ok(None) };
    match v1::NamespaceMode::try_from(given.mode) {
        Ok(v1::NamespaceMode::Pod) => {}
        Ok(v1::NamespaceMode::Node) if given.uids.is_empty() && given.gids.is_empty() => {
            return Ok(None);
        }
        Ok(v1::NamespaceMode::Node) => {
            return Err(rejected(field, "maps ids, and the user namespace is the node's"));
        }
        _ => return Err(rejected(format!("{field}.mode"), "is neither POD nor NODE")),
    }
    let owners = owners((&given.uids, "uids"), (&given.gids, "gids"), &field)?.unwrap_or_default();
    let why = match (&owners.uids[..], &owners.gids[..]) {
        ([uids], [gids]) if uids != gids => "maps users otherwise than groups",
        ([ids], [_]) if ids.container != 0 => "does not map the container's root",
        ([_], [_]) => return Ok(Some(owners)),
        _ => "needs one mapping of users and one of groups",
    };
    Err(rejected(field, why))
}

/// Mappings of ids, each list with its name below `field`; none if there are none.
pub(super) fn owners(
    uids: (&[v1::IdMapping], &str),
    gids: (&[v1::IdMapping], &str),
    field: &str,
) -> Result<Option<UserNamespace>, Rejected> {
    let all = |(maps, name): (&[v1::IdMapping], &str)| {
        let map = |(n, map)| mapping(map, &format!("{field}.{name}[{n}]"));
        maps.iter().enumerate().map(map).collect::<Result<Vec<_>, _>>()
    };
    let owners = UserNamespace { uids: all(uids)?, gids: all(gids)? };
    Ok(Some(owners).filter(|owners| *owners != UserNamespace::default()))
}

fn mapping(map: &v1::IdMapping, field: &str) -> Result<IdMapping, Rejected> {
    let (container, host, length) = (map.container_id, map.host_id, map.length);
    let ends = |start: u32| start.checked_add(length).is_some();
    match length > 0 && ends(container) && ends(host) {
        true => Ok(IdMapping { container, host, length }),
        false => Err(rejected(field, "is empty, or longer than there are ids")),
    }
}

/// The mode with this number; none if there is no such mode.
pub(super) fn sharing(number: i32, target: &str) -> Option<Sharing> {
    Some(match v1::NamespaceMode::try_from(number).ok()? {
        v1::NamespaceMode::Pod => Sharing::Pod,
        v1::NamespaceMode::Container => Sharing::Container,
        v1::NamespaceMode::Node => Sharing::Node,
        v1::NamespaceMode::Target => Sharing::Target(target.to_owned()),
    })
}

pub(super) fn group_needs_user(
    user: &Option<v1::Int64Value>,
    group: &Option<v1::Int64Value>,
    username: &str,
    field: &str,
) -> Result<(), Rejected> {
    for (id, name) in [(user, "run_as_user"), (group, "run_as_group")] {
        if let Some(id) = id.as_ref().filter(|id| u32::try_from(id.value).is_err()) {
            return Err(rejected(format!("{field}.{name}"), format!("{} is not an id", id.value)));
        }
    }
    if group.is_some() && user.is_none() && username.is_empty() {
        return Err(rejected(
            format!("{field}.run_as_group"),
            "is given without run_as_user or run_as_username",
        ));
    }
    Ok(())
}

/// The profile, by the field of today or, without it, the deprecated path. None is unconfined, as
/// the CRI has it.
pub(super) fn seccomp(
    profile: Option<v1::SecurityProfile>,
    path: &str,
    field: &str,
) -> Result<Profile, Rejected> {
    match (profile, path) {
        (Some(profile), _) => self::profile(profile, &format!("{field}.seccomp")),
        (None, "" | "unconfined") => Ok(Profile::Unconfined),
        (None, "runtime/default" | "docker/default") => Ok(Profile::RuntimeDefault),
        (None, path) => match path.strip_prefix("localhost/") {
            Some(path) if !path.is_empty() => Ok(Profile::Localhost(path.to_owned())),
            _ => Err(rejected(
                format!("{field}.seccomp_profile_path"),
                format!("{path:?} is not runtime/default, unconfined or localhost/PATH"),
            )),
        },
    }
}

/// Without a profile the host's default holds where there is AppArmor, and nothing elsewhere: that
/// is what `Unconfined` stands for here until a profile of ours exists.
pub(super) fn apparmor(
    profile: Option<v1::SecurityProfile>,
    name: &str,
    field: &str,
) -> Result<Option<Profile>, Rejected> {
    match (profile, name) {
        (Some(mut profile), _) => {
            // critest, and kubelets of old, write it as the annotation was written.
            if let Some(name) = profile.localhost_ref.strip_prefix("localhost/") {
                profile.localhost_ref = name.to_owned();
            }
            self::profile(profile, &format!("{field}.apparmor")).map(Some)
        }
        (None, "") => Ok(None),
        (None, "unconfined") => Ok(Some(Profile::Unconfined)),
        (None, "runtime/default") => Ok(Some(Profile::RuntimeDefault)),
        (None, name) => match name.strip_prefix("localhost/") {
            Some(name) if !name.is_empty() => Ok(Some(Profile::Localhost(name.to_owned()))),
            _ => Err(rejected(
                format!("{field}.apparmor_profile"),
                format!("{name:?} is not runtime/default, unconfined or localhost/NAME"),
            )),
        },
    }
}

/// A local profile without a name must not mean no profile (CVE-2023-2431).
fn profile(profile: v1::SecurityProfile, field: &str) -> Result<Profile, Rejected> {
    use v1::security_profile::ProfileType;
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Profile::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(Profile::Unconfined),
        Ok(ProfileType::Localhost) if !profile.localhost_ref.is_empty() => {
            Ok(Profile::Localhost(profile.localhost_ref))
        }
        Ok(ProfileType::Localhost) => Err(rejected(format!("{field}.localhost_ref"), "is missing")),
        Err(_) => Err(rejected(format!("{field}.profile_type"), "is not a type of profile")),
    }
}

/// Options that say nothing are none.
pub(super) fn selinux(options: v1::SeLinuxOption) -> Option<Selinux> {
    let selinux = Selinux {
        user: options.user,
        role: options.role,
        kind: options.r#type,
        level: options.level,
    };
    (selinux != Selinux::default()).then_some(selinux)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_profile_without_a_name_is_refused_and_not_unconfined() {
        let local = v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::Localhost as i32,
            localhost_ref: String::new(),
        };
        assert!(seccomp(Some(local.clone()), "", "x").is_err());
        assert!(apparmor(Some(local), "", "x").is_err());
        assert!(seccomp(None, "localhost/", "x").is_err());
    }

    #[test]
    fn the_deprecated_path_still_speaks() {
        assert_eq!(seccomp(None, "", "x"), Ok(Profile::Unconfined));
        assert_eq!(seccomp(None, "runtime/default", "x"), Ok(Profile::RuntimeDefault));
        let local = Profile::Localhost("/p.json".into());
        assert_eq!(seccomp(None, "localhost//p.json", "x"), Ok(local));
    }

    #[test]
    fn ids_are_exact() {
        for (id, good) in [(0, true), (-1, false), (4_294_967_295, true), (4_294_967_296, false)] {
            let id = Some(v1::Int64Value { value: id });
            assert_eq!(group_needs_user(&id, &None, "", "x").is_ok(), good);
        }
    }
}
