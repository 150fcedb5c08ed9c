//! A config as the bytes of `config.json`: the same bytes for the same config.

use oci_spec::runtime::Spec;
use serde_json::Value;

/// Indented JSON with keys in order. The library keeps maps and capabilities in no order; here they
/// have one, so that two configs can be compared.
pub fn to_json(spec: &Spec) -> Vec<u8> {
    let mut value = serde_json::to_value(spec).expect("a spec has string keys and no odd numbers");
    if let Some(Value::Object(sets)) = value.pointer_mut("/process/capabilities") {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    serde_json::to_vec_pretty(&value).expect("a JSON value is JSON")
}
