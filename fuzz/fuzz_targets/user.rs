//! Who a container's process is, from the image's word for it and the container's own files. The
//! input is three texts with NULs between them: the user, `/etc/passwd`, `/etc/group`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Groups, Passwd, UserAsk, resolve_user};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (user, passwd, group) = (String::from_utf8_lossy(part()), part(), part());
    let files = (Passwd::parse(passwd), Groups::parse(group));
    let name = user.split(':').next().unwrap_or_default();
    let of_image = UserAsk { image_user: user.to_string(), ..UserAsk::default() };
    let by_name = UserAsk { run_as_username: user.to_string(), ..UserAsk::default() };
    let by_uid = UserAsk { run_as_user: Some(name.parse().unwrap_or(7)), ..UserAsk::default() };
    for (ask, name) in [(of_image, name), (by_name, &*user), (by_uid, name)] {
        let Ok(found) = resolve_user(&ask, &files.0, &files.1) else { continue };
        assert!(found.groups.contains(&found.gid) && found.groups.is_sorted());
        assert!(found.uid != u32::MAX && !found.groups.contains(&u32::MAX));
        let home = found.home.unwrap_or_else(|| "/".to_owned());
        assert!(home.starts_with('/') && !home.chars().any(char::is_control), "{home:?}");
        let zero = name.trim_start_matches(['+', '-']).bytes().all(|b| b == b'0');
        assert!(found.uid != 0 || zero || is_root(name, passwd), "{name:?} became root");
    }
});

/// Whether the file has an account of this name with the uid 0.
fn is_root(name: &str, passwd: &[u8]) -> bool {
    String::from_utf8_lossy(passwd).split('\n').any(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        fields.len() > 3 && fields[0] == name && !name.is_empty() && fields[2].parse() == Ok(0_u32)
    })
}
