//! Whatever is asked for, a config is made that is whole, or the request is rejected.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{Propagation, Spec, config};

/// Text such as people and their adversaries write.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_./=-]{0,20}",
        "(/|\\.\\.|proc|sys|dev|fd|self|0){0,8}",
        "\\PC{0,10}",
        Just("a\0b".to_owned()),
    ]
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

fn any_mount() -> impl Strategy<Value = Mount> {
    let propagation = prop_oneof![
        Just(Propagation::Private),
        Just(Propagation::HostToContainer),
        Just(Propagation::Bidirectional),
    ];
    (text(), text(), any::<(bool, bool)>(), propagation).prop_map(
        |(place, source, (readonly, recursive_read_only), propagation)| Mount {
            readonly,
            recursive_read_only,
            propagation,
            ..mount(&place, &format!("/{source}"))
        },
    )
}

fn is_whole(spec: &Spec) {
    let process = spec.process().as_ref().unwrap();
    assert!(process.args().as_ref().is_some_and(|args| !args.is_empty()));
    assert!(process.cwd().is_absolute());
    assert!(process.env().iter().flatten().all(|one| one.contains('=') && !one.contains('\0')));
    let inheritable = process.capabilities().as_ref().unwrap().inheritable().clone().unwrap();
    assert!(inheritable.is_empty());
    for mount in spec.mounts().iter().flatten() {
        let place = mount.destination();
        assert!(place.is_absolute() && place != Path::new("/"), "{place:?}");
        assert!(!place.iter().any(|part| part == ".."), "{place:?}");
    }
}

proptest! {
    #[test]
    fn any_request_makes_a_whole_config_or_is_rejected(
        command in words(),
        env in prop::collection::vec((text(), prop::collection::vec(any::<u8>(), 0..9)), 0..4),
        image_env in words(),
        working_dir in text(),
        mounts in prop::collection::vec(any_mount(), 0..5),
        image_volumes in prop::collection::vec(any_mount(), 0..3),
        capabilities in words(),
        masked_paths in words(),
        (oom, limits) in any::<(i64, [Option<i64>; 4])>(),
    ) {
        let mut plan = plan();
        plan.process.command = command;
        plan.process.env = env.into_iter().map(|(name, value)| Env { name, value }).collect();
        plan.process.image.env = image_env;
        plan.process.working_dir = working_dir;
        plan.process.oom_score_adj = Some(oom);
        plan.mounts = mounts;
        plan.image_volumes = image_volumes;
        plan.security.capabilities.add = capabilities;
        plan.security.masked_paths = masked_paths;
        let [cpu_quota, memory, memory_swap, pids] = limits;
        plan.resources = Resources { cpu_quota, memory, memory_swap, pids, ..Resources::default() };
        if let Ok(config) = config(&plan) {
            is_whole(&config.spec);
        }
        // The chance of a good one must not be nought, so the worst is taken out by turns.
        plan.process.oom_score_adj = None;
        plan.security.capabilities.add.clear();
        plan.security.masked_paths.clear();
        plan.resources = Resources::default();
        if let Ok(config) = config(&plan) {
            is_whole(&config.spec);
        }
        plan.process.env.clear();
        plan.process.image.env.clear();
        plan.mounts.clear();
        plan.image_volumes.clear();
        if let Ok(config) = config(&plan) {
            is_whole(&config.spec);
        }
    }
}
