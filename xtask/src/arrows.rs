//! Which room may know which. An arrow that is not in this list is a mistake, or a decision to be
//! written down.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

/// A room, and the rooms that it may know.
const ARROWS: [(&str, &[&str]); 26] = [
    ("names", &[]),
    ("config", &[]),
    ("cri-proto", &["names"]),
    ("sandbox-api", &[]),
    ("serving", &[]),
    ("spdy", &[]),
    ("streaming", &["names", "spdy"]),
    ("sys", &[]),
    ("systemd", &["names"]),
    ("oci", &["names"]),
    ("store", &["names"]),
    ("registry", &["names"]),
    ("images", &["names", "registry", "sys"]),
    ("cni", &["names", "sys"]),
    ("network", &["names", "sys"]),
    ("shim-api", &["names"]),
    ("shim", &["names", "oci", "shim-api", "sys"]),
    ("controllers", &["cri-proto", "names", "oci", "sandbox-api", "shim-api", "sys"]),
    (
        "sandboxer",
        &[
            "config",
            "controllers",
            "cri-proto",
            "names",
            "sandbox-api",
            "serving",
            "shim-api",
            "store",
            "sys",
        ],
    ),
    (
        "pods",
        &[
            "cni",
            "controllers",
            "images",
            "names",
            "network",
            "oci",
            "shim-api",
            "store",
            "sys",
            "systemd",
        ],
    ),
    (
        "cri",
        &[
            "cri-proto",
            "images",
            "names",
            "pods",
            "registry",
            "shim-api",
            "store",
            "streaming",
            "sys",
        ],
    ),
    (
        "daemon",
        &[
            "cni",
            "config",
            "controllers",
            "cri",
            "cri-proto",
            "images",
            "names",
            "network",
            "oci",
            "pods",
            "registry",
            "serving",
            "store",
            "streaming",
            "sys",
            "systemd",
        ],
    ),
    ("ctl", &["cri-proto", "names"]),
    ("bench", &["cri-proto", "names"]),
    ("e2e", &["cri-proto", "names"]),
    ("xtask", &[]),
];

pub(crate) fn check() -> Result<(), String> {
    let metadata = MetadataCommand::new().current_dir(crate::root()).no_deps().exec();
    let metadata = metadata.map_err(|error| error.to_string())?;
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(known) = allowed.get(name) else {
            wrong.push(format!("{name} is not in xtask/src/arrows.rs"));
            continue;
        };
        let arrows = package.dependencies.iter().filter(|dependency| {
            dependency.path.is_some() && dependency.kind != DependencyKind::Development
        });
        for arrow in arrows.filter(|arrow| !known.contains(&arrow.name.as_str())) {
            wrong.push(format!("{name} must not know {}", arrow.name));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}
