//! A pod's annotations ask for a bandwidth: a quantity is refused, or a rate within the limits.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = "kubernetes.io/egress-bandwidth".to_owned();
    let annotations = BTreeMap::from([(key, text.to_owned())]);
    if let Ok(asked) = cni::bandwidth(&annotations) {
        let (_, value) = asked.expect("an annotation that is good asks for something");
        let rate = value["egressRate"].as_u64().expect("a rate is a whole number");
        assert!((1_000..=1_000_000_000_000_000).contains(&rate), "{text:?} became {rate}");
    }
});
