//! Image references, digests and ids: what is read is written alike, and nothing in it climbs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use names::{ContainerId, Digest, ImageRef, PodId};

fuzz_target!(|text: &str| {
    if let Ok(image) = text.parse::<ImageRef>() {
        assert_eq!(image.to_string().parse::<ImageRef>().as_ref(), Ok(&image));
        assert!(is_server(image.registry()), "{:?}", image.registry());
        assert!(!image.path().split('/').any(|part| matches!(part, "" | "." | "..")));
        assert!(image.to_string().bytes().all(|b| b.is_ascii_graphic()));
        let digest = Digest::from_sha256([7; 32]);
        let pinned = image.with_digest(digest.clone());
        assert_eq!(pinned.to_string().parse::<ImageRef>().as_ref(), Ok(&pinned));
        assert_eq!(pinned.wanted(), digest.as_str());
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(digest.hex().len() == 64 && digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
    }
    if let Ok(id) = text.parse::<PodId>() {
        assert_eq!(id.to_string(), text);
        assert!(text.parse::<ContainerId>().is_ok());
    }
});

/// Whether it is a name or an address, with or without a port, and so safe as part of a URL.
fn is_server(registry: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    !registry.is_empty() && registry.bytes().all(plain)
}
