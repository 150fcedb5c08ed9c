//! AppArmor: by which profile a container is confined, and whether that is loaded. Loading it is not
//! done here; the runtime asks the kernel to apply it.

use std::{io::ErrorKind, path::Path};

use crate::{Error, error::Context, plan::Profile};

/// The profile that containers have that ask for the runtime's default, or for nothing.
pub const DEFAULT_PROFILE: &str = "podbay-default";

/// One line for each profile: its name, and its mode in parentheses.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

const FIELD: &str = "config.linux.security_context.apparmor";

/// Whether the kernel has a profile of this name.
///
/// # Errors
/// The list of profiles is there and cannot be read.
pub fn is_loaded(name: &str) -> Result<bool, Error> {
    match std::fs::read_to_string(LOADED) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        list => Ok(is_listed(&list.on("reading", Path::new(LOADED))?, name)),
    }
}

fn is_listed(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(listed, _)| listed == name))
}

/// The profile for what is asked, if there is to be one. A request that says nothing gets the default
/// (kubernetes#51746), where there is one; what is named must be loaded.
pub(crate) fn profile(asked: Option<&Profile>, enabled: bool) -> Result<Option<String>, Error> {
    let name = match asked {
        Some(Profile::Unconfined) => return Ok(None),
        None if !enabled => return Ok(None),
        Some(_) if !enabled => {
            return Err(Error::rejected(FIELD, "this host has no AppArmor to confine it with"));
        }
        // That it cannot be loaded was told when the daemon started.
        None => return Ok(is_loaded(DEFAULT_PROFILE)?.then(|| DEFAULT_PROFILE.to_owned())),
        Some(Profile::RuntimeDefault) => DEFAULT_PROFILE,
        Some(Profile::Localhost(name)) => name,
    };
    if is_loaded(name)? {
        return Ok(Some(name.to_owned()));
    }
    let why = format!("the profile {name} is not loaded on this node: apparmor_parser loads one");
    Err(Error::rejected(FIELD, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_by_its_whole_name() {
        let list = "/usr/bin/man (enforce)\npodbay-default (enforce)\nodd (name) (complain)\n";
        for name in ["/usr/bin/man", "podbay-default", "odd (name)"] {
            assert!(is_listed(list, name), "{name}");
        }
        assert!(!is_listed(list, "podbay") && !is_listed(list, "odd") && !is_listed("", ""));
    }

    #[test]
    fn without_apparmor_only_what_asks_for_it_is_refused() {
        assert_eq!(profile(None, false).unwrap(), None);
        assert_eq!(profile(Some(&Profile::Unconfined), false).unwrap(), None);
        for asked in [Profile::RuntimeDefault, Profile::Localhost("x".into())] {
            let why = profile(Some(&asked), false).unwrap_err().to_string();
            assert!(why.contains(FIELD), "{why}");
        }
    }

    #[test]
    fn a_profile_that_is_not_loaded_is_refused_by_name() {
        let asked = Profile::Localhost("podbay-has-no-such-profile".into());
        let why = profile(Some(&asked), true).unwrap_err().to_string();
        assert!(why.contains("podbay-has-no-such-profile") && why.contains("loaded"), "{why}");
    }
}
