//! What a conf may say, and what it may not.

use proptest::prelude::*;

use super::*;

const LIST: &str = r#"{
  "cniVersion": "1.0.0", "name": "k8s-pod.net_1", "disableCheck": "true", "disableGC": true,
  "loadOnlyInlinedPlugins": true, "unheard": {"of": [1, 2]},
  "plugins": [
    {"type": "bridge", "ipam": {"type": "host-local"}, "dns": null},
    {"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": false}}
  ]
}"#;

fn with(field: &str, value: Value) -> Result<NetworkList, BadConf> {
    let mut conf: Value = serde_json::from_str(LIST).unwrap();
    conf[field] = value;
    parse_conflist(conf.to_string().as_bytes())
}

fn with_type(kind: &str) -> Result<NetworkList, BadConf> {
    with("plugins", json!([{ "type": kind }]))
}

#[test]
fn a_list_is_read_with_all_that_we_do_not_know() {
    let list = parse_conflist(LIST.as_bytes()).unwrap();
    assert_eq!(list.name(), "k8s-pod.net_1");
    assert_eq!(list.version(), Version::V1_0_0);
    assert!(list.disables_check() && list.disables_gc());
    assert_eq!(list.text(), LIST);
    let kinds: Vec<_> = list.plugins().iter().map(Plugin::kind).collect();
    assert_eq!(kinds, ["bridge", "portmap"]);
    assert!(list.wants("portMappings") && !list.wants("bandwidth"));
    assert!(!list.plugins()[0].wants("portMappings"));
}

#[test]
fn a_single_plugin_becomes_a_list_of_one() {
    let conf = br#"{"cniVersion": "0.3.1", "name": "flat", "type": "macvlan", "master": "eth0"}"#;
    let list = parse_conf(conf).unwrap();
    assert_eq!((list.name(), list.version()), ("flat", Version::V0_3_1));
    assert_eq!(list.plugins()[0].conf()["master"], "eth0");
    assert_eq!(parse_conflist(list.text().as_bytes()).unwrap().plugins()[0].kind(), "macvlan");
    assert!(parse_conf(LIST.as_bytes()).unwrap_err().to_string().contains(".conflist"));
}

#[test]
fn a_type_that_is_more_than_a_file_name_is_refused() {
    let long = "x".repeat(256);
    for kind in ["", ".", "..", "/bin/sh", "../../bin/sh", "a/b", "a\\b", "a\0b", &long] {
        let refusal = with_type(kind).unwrap_err().to_string();
        assert!(refusal.contains("plugins[0].type"), "{refusal}");
    }
    with_type("dhcp-v2.1_x").unwrap();
    for ipam in ["../../bin/sh", "/bin/sh", ".."] {
        let plugins = json!([{ "type": "bridge", "ipam": { "type": ipam } }]);
        let refusal = with("plugins", plugins).unwrap_err().to_string();
        assert!(refusal.contains("ipam.type"), "{refusal}");
    }
    with("plugins", json!([{ "type": "bridge", "ipam": {} }])).unwrap();
    with("plugins", json!([{ "type": "bridge", "ipam": { "type": "" } }])).unwrap();
}

#[test]
fn a_name_that_could_not_be_a_file_name_is_refused() {
    for name in ["", "../x", "a/b", "-x", ".x", "a b", "ä", "a\n"] {
        assert!(with("name", json!(name)).is_err(), "{name:?}");
    }
    assert!(with("name", json!(7)).unwrap_err().to_string().contains("is 7"));
    assert!(matches!(with("name", Value::Null), Err(BadConf::Missing { .. })));
}

#[test]
fn what_is_missing_or_of_another_shape_is_named() {
    for (text, expected) in [
        ("", "it is not JSON"),
        ("[]", "it must be a JSON object, and is a list of 0"),
        (r#"{"name": "a"}"#, "plugins is missing"),
        (r#"{"name": "a", "plugins": []}"#, "plugins must be a list of at least one plugin"),
        (r#"{"name": "a", "plugins": {}}"#, "plugins must be a list"),
        (r#"{"plugins": [{"type": "a"}]}"#, "name is missing"),
        (r#"{"name": "a", "plugins": ["x"]}"#, "plugins[0] must be a JSON object, and is \"x\""),
        (r#"{"name": "a", "plugins": [{}]}"#, "plugins[0].type is missing"),
        (r#"{"name": "a", "plugins": [{"type": 1}]}"#, "plugins[0].type must be the bare name"),
    ] {
        let refusal = parse_conflist(text.as_bytes()).unwrap_err().to_string();
        assert!(refusal.starts_with(expected), "{text}: {refusal}");
    }
    let refusal = with("plugins", json!([{"type": "a", "capabilities": 1}])).unwrap_err();
    assert!(refusal.to_string().contains("plugins[0].capabilities"), "{refusal}");
    assert!(with("disableCheck", json!("maybe")).is_err());
}

#[test]
fn the_greatest_version_that_both_speak_is_taken() {
    let versions = |single: Value, more: Value| {
        let mut conf: Value = serde_json::from_str(LIST).unwrap();
        conf["cniVersion"] = single;
        conf["cniVersions"] = more;
        parse_conflist(conf.to_string().as_bytes()).map(|list| list.version())
    };
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let parsed = versions(json!(version), Value::Null).unwrap();
        assert_eq!(parsed.as_str(), version);
    }
    let several = json!(["1.0.0", "1.1.0", "9.0.0"]);
    assert_eq!(versions(json!("1.0.0"), several.clone()).unwrap(), Version::V1_1_0);
    assert_eq!(versions(Value::Null, several).unwrap(), Version::V1_1_0);
    assert_eq!(versions(Value::Null, Value::Null).unwrap(), Version::V0_1_0);
    let refusal = versions(json!("2.0.0"), json!(["9.9.9"])).unwrap_err().to_string();
    assert!(refusal.contains("cniVersion must be") && refusal.contains("2.0.0"), "{refusal}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(0\\.4\\.0|1\\.1\\.0|bridge|true|\\.\\./x|.{0,8})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key =
            "(name|cniVersion|cniVersions|plugins|type|ipam|capabilities|disableCheck|.{0,4})";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_conflist(&bytes);
        let _ = parse_conf(&bytes);
    }

    #[test]
    fn whatever_is_accepted_names_only_bare_files_and_reads_back_the_same(conf in any_json()) {
        let bytes = conf.to_string().into_bytes();
        for list in [parse_conflist(&bytes), parse_conf(&bytes)].into_iter().flatten() {
            prop_assert!(is_word(list.name()));
            for plugin in list.plugins() {
                prop_assert!(!plugin.kind().contains('/') && plugin.kind() != "..");
            }
            let again = parse_conflist(list.text().as_bytes()).unwrap();
            prop_assert_eq!(again.text(), list.text());
            prop_assert_eq!(again.version(), list.version());
        }
    }

    #[test]
    fn a_list_with_one_odd_field_is_read_or_refused(
        field in "(name|cniVersion|cniVersions|plugins|disableCheck|disableGC)",
        value in any_json(),
    ) {
        let _ = with(&field, value);
    }
}
