//! `ContainerConfig`, from the bytes of the wire to the plan: no path in it climbs, nothing that
//! becomes a line has two, and the plan reads back from its record as it was.
#![no_main]

use std::path::{Component, Path};

use cri_proto::v1::ContainerConfig;
use libfuzzer_sys::fuzz_target;
use pods::plan::ContainerPlan;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = ContainerConfig::decode(bytes) else { return };
    let Ok(plan) = cri::parse::container(config) else { return };
    assert!(!plan.name.is_empty() && !plan.name.chars().any(char::is_control));
    assert!(!plan.image.is_empty());
    if let Some(path) = &plan.log_path {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert!(!path.as_os_str().is_empty());
    }
    for mount in &plan.mounts {
        assert!(is_rooted(&mount.container_path) && is_rooted(&mount.host_path), "{mount:?}");
    }
    for device in &plan.devices {
        assert!(is_rooted(&device.container_path) && is_rooted(&device.host_path), "{device:?}");
    }
    assert!(plan.working_dir.is_empty() || is_rooted(Path::new(&plan.working_dir)));
    for (key, value) in &plan.envs {
        assert!(!key.is_empty() && !key.contains(['=', '\0']) && !value.contains(&0));
    }
    let record = serde_json::to_vec(&plan).expect("a plan can be recorded");
    let again: ContainerPlan = serde_json::from_slice(&record).expect("a record is a plan");
    assert_eq!(again, plan);
});

fn is_rooted(path: &Path) -> bool {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    path.is_absolute() && !climbs && !path.as_os_str().as_encoded_bytes().contains(&0)
}
