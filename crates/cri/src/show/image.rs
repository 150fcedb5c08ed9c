//! Images, as CRI shows them.

use cri_proto::v1;
use images::{Image, Usage};

pub(crate) fn image(image: &Image) -> v1::Image {
    let (uid, username) = user(&image.config.user);
    v1::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().map(ToString::to_string).collect(),
        repo_digests: image.digests.iter().map(ToString::to_string).collect(),
        size: image.size,
        uid,
        username,
        spec: Some(v1::ImageSpec { image: image.id.to_string(), ..Default::default() }),
        pinned: image.pinned,
    }
}

/// Who the image runs as: a number, or a name, of which the kubelet tells root from others. Neither
/// means root.
fn user(user: &str) -> (Option<v1::Int64Value>, String) {
    let name = user.split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        Ok(uid) => (Some(v1::Int64Value { value: uid.into() }), String::new()),
        Err(_) => (None, name.to_owned()),
    }
}

pub(crate) fn filesystem(
    mountpoint: &std::path::Path,
    usage: Usage,
    at: i64,
) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: at,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint: mountpoint.display().to_string() }),
        used_bytes: Some(v1::UInt64Value { value: usage.bytes }),
        inodes_used: Some(v1::UInt64Value { value: usage.inodes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name_and_never_a_wrapped_number() {
        assert_eq!(user("1002").0.unwrap().value, 1002);
        assert_eq!(user("1003:users").0.unwrap().value, 1003);
        assert_eq!(user("www-data:www"), (None, "www-data".into()));
        assert_eq!(user(""), (None, String::new()));
        assert_eq!(user("4294967296"), (None, "4294967296".into()));
    }
}
