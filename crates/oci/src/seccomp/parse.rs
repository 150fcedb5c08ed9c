//! Filters that come as files: the JSON of an OCI runtime config's `seccomp`. What a runtime would
//! drop, misread or stumble over is refused here: a filter with holes is worse than none.

use std::collections::BTreeMap;

use names::Class;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use serde_json::Value;

/// No filter of use comes near it.
const LONGEST: usize = 1 << 20;
/// A system call has six arguments.
const ARGUMENTS: usize = 6;
/// The greatest error number that the kernel hands on.
const MAX_ERRNO: u32 = 4095;

/// A file is no filter.
#[derive(Debug, thiserror::Error)]
pub enum BadProfile {
    #[error("the seccomp profile is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the seccomp profile is not JSON of an OCI seccomp filter")]
    NotOci(#[source] serde_json::Error),
    #[error(
        "the seccomp profile has {field:?} in rule {rule}, which is Docker's and not OCI's: \
             the rule would hold always"
    )]
    Conditional { rule: usize, field: &'static str },
    #[error("the seccomp profile's rule {rule} {why}")]
    Rule { rule: usize, why: String },
    #[error("the seccomp profile {0}")]
    Profile(&'static str),
}

impl BadProfile {
    pub fn class(&self) -> Class {
        Class::InvalidArgument
    }
}

/// Reads a filter.
///
/// # Errors
/// See [`BadProfile`].
pub fn parse_seccomp(bytes: &[u8]) -> Result<LinuxSeccomp, BadProfile> {
    if bytes.len() > LONGEST {
        return Err(BadProfile::TooLong);
    }
    let value: Value = serde_json::from_slice(bytes).map_err(BadProfile::NotOci)?;
    check_unconditional(&value)?;
    let profile: LinuxSeccomp = serde_json::from_value(value).map_err(BadProfile::NotOci)?;
    check_profile(&profile)?;
    for (rule, syscall) in profile.syscalls().iter().flatten().enumerate() {
        check_rule(syscall).map_err(|why| BadProfile::Rule { rule, why })?;
    }
    Ok(profile)
}

fn check_unconditional(profile: &Value) -> Result<(), BadProfile> {
    let rules = profile.get("syscalls").and_then(Value::as_array);
    for (rule, value) in rules.into_iter().flatten().enumerate() {
        for field in ["includes", "excludes"] {
            let is_empty = match value.get(field) {
                None | Some(Value::Null) => true,
                Some(Value::Object(conditions)) => conditions.is_empty(),
                Some(_) => false,
            };
            if !is_empty {
                return Err(BadProfile::Conditional { rule, field });
            }
        }
    }
    Ok(())
}

fn check_profile(profile: &LinuxSeccomp) -> Result<(), BadProfile> {
    let refuse = |why| Err(BadProfile::Profile(why));
    let is_notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    if is_notify(profile.default_action()) {
        return refuse("would ask somebody about every system call, even those of the asking");
    }
    if profile.default_errno_ret().is_some_and(|errno| errno > MAX_ERRNO) {
        return refuse("has a default error number above 4095");
    }
    let mut rules = profile.syscalls().iter().flatten();
    if rules.any(|rule| is_notify(rule.action())) && profile.listener_path().is_none() {
        return refuse("notifies somebody, but has no listenerPath to say whom");
    }
    Ok(())
}

fn check_rule(rule: &LinuxSyscall) -> Result<(), String> {
    if rule.names().is_empty() {
        return Err("names no system call".to_owned());
    }
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if let Some(name) = rule.names().iter().find(|name| !is_name(name)) {
        return Err(format!("has {name:?}, which is no system call"));
    }
    let writes = rule.names().iter().any(|name| name == "write");
    if writes && rule.action() == LinuxSeccompAction::ScmpActNotify {
        return Err("notifies about write, without which nobody can be notified".to_owned());
    }
    if rule.errno_ret().is_some_and(|errno| errno > MAX_ERRNO) {
        return Err("has an error number above 4095".to_owned());
    }
    let mut seen = BTreeMap::new();
    for arg in rule.args().iter().flatten() {
        if arg.index() >= ARGUMENTS {
            return Err(format!("compares argument {}; there are six, from 0", arg.index()));
        }
        *seen.entry(arg.index()).or_insert(0) += 1;
    }
    // Runtimes make one rule of each such condition, any of which is enough.
    match seen.into_iter().find(|(_, times)| *times > 1) {
        Some((index, _)) if rule.action() == LinuxSeccompAction::ScmpActAllow => {
            Err(format!("allows by two conditions on argument {index}, either of which is enough"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(text: &str) -> String {
        parse_seccomp(text.as_bytes()).unwrap_err().to_string()
    }

    fn rule(rule: &str) -> String {
        format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rule}]}}"#)
    }

    #[test]
    fn a_filter_is_read_whole() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_LOG", "includes": {},
                "args": [{"index": 1, "value": 511, "op": "SCMP_CMP_EQ"}]}]
        }"#;
        let profile = parse_seccomp(text.as_bytes()).unwrap();
        assert_eq!(profile.default_errno_ret(), Some(38));
        let rules = profile.syscalls().as_ref().unwrap();
        assert_eq!(rules[0].names(), &["chmod"]);
        assert_eq!(rules[0].args().as_ref().unwrap()[0].value(), 511);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let names = r#""names":["read"]"#;
        let allow = r#""action":"SCMP_ACT_ALLOW""#;
        let table = [
            (rule(&format!(r#"{{"names":[],{allow}}}"#)), "no system call"),
            (rule(&format!(r#"{{"names":["a b"],{allow}}}"#)), "a b"),
            (rule(&format!(r#"{{{names},{allow},"errnoRet":9999}}"#)), "error number"),
            (rule(&format!(r#"{{{names},{allow},"includes":{{"caps":["X"]}}}}"#)), "includes"),
            (rule(&format!(r#"{{{names},"action":"SCMP_ACT_NOTIFY"}}"#)), "listenerPath"),
            (
                rule(&format!(
                    r#"{{{names},{allow},"args":[{{"index":6,"value":0,"op":"SCMP_CMP_EQ"}}]}}"#
                )),
                "argument 6",
            ),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(), "asking"),
        ];
        for (text, word) in table {
            assert!(problem(&text).contains(word), "{text}: {}", problem(&text));
        }
    }

    #[test]
    fn what_is_no_filter_at_all_is_refused() {
        for text in
            ["", "{}", "[]", "null", r#"{"defaultAction":"ALLOW"}"#, "{\"defaultAction\":1}"]
        {
            assert!(matches!(parse_seccomp(text.as_bytes()), Err(BadProfile::NotOci(_))), "{text}");
        }
        let deep = "[".repeat(1 << 19);
        assert!(parse_seccomp(deep.as_bytes()).is_err());
        assert!(matches!(parse_seccomp(&vec![b' '; LONGEST + 1]), Err(BadProfile::TooLong)));
    }

    #[test]
    fn two_conditions_on_one_argument_do_not_allow_what_either_forbids() {
        let args = r#"[{"index":0,"value":38,"op":"SCMP_CMP_NE"},{"index":0,"value":40,"op":"SCMP_CMP_NE"}]"#;
        let text =
            rule(&format!(r#"{{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":{args}}}"#));
        assert!(problem(&text).contains("either of which"));
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z_0-9]{0,9}", "\\PC{0,9}"]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_seccomp(&bytes);
        }

        #[test]
        fn what_is_accepted_has_only_whole_rules(
            name in any_name(),
            index in 0usize..9,
            errno in 0u32..9000,
            action in "SCMP_ACT_(ALLOW|ERRNO|NOTIFY|LOG|X)",
        ) {
            let text = serde_json::json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": [name], "action": action, "errnoRet": errno,
                    "args": [{"index": index, "value": 1, "op": "SCMP_CMP_EQ"}]}],
            }).to_string();
            if let Ok(profile) = parse_seccomp(text.as_bytes()) {
                let rule = &profile.syscalls().as_ref().unwrap()[0];
                prop_assert!(rule.errno_ret().unwrap() <= MAX_ERRNO);
                prop_assert!(rule.args().as_ref().unwrap()[0].index() < ARGUMENTS);
                let again = serde_json::to_vec(&profile).unwrap();
                prop_assert_eq!(parse_seccomp(&again).unwrap(), profile);
            }
        }
    }
}
