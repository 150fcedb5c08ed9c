//! `PodSandboxConfig`, from the bytes of the wire to the plan: no path in it climbs, nothing that
//! becomes a line has two, and the plan reads back from its record as it was.
#![no_main]

use std::path::{Component, Path};

use cri_proto::v1::PodSandboxConfig;
use libfuzzer_sys::fuzz_target;
use pods::plan::PodPlan;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = PodSandboxConfig::decode(bytes) else { return };
    let Ok(plan) = cri::parse::pod(config, String::new()) else { return };
    for path in [&plan.log_directory, &plan.cgroup_parent].into_iter().flatten() {
        assert!(is_rooted(path), "{path:?}");
    }
    let dns = plan.dns.clone().unwrap_or_default();
    let name = &plan.name;
    let lines = [&plan.hostname, &name.namespace, &name.name, &name.uid];
    let more = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    for line in lines.into_iter().chain(more).chain(plan.sysctls.keys()) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let record = serde_json::to_vec(&plan).expect("a plan can be recorded");
    let again: PodPlan = serde_json::from_slice(&record).expect("a record is a plan");
    assert_eq!(again, plan);
});

fn is_rooted(path: &Path) -> bool {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    path.is_absolute() && !climbs && !path.as_os_str().as_encoded_bytes().contains(&0)
}
