//! A manifest or an index: it is one or the other, as it was announced, and never has more layers
//! than can be mounted.
#![no_main]

use images::{Document, parse_manifest};
use libfuzzer_sys::fuzz_target;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fuzz_target!(|bytes: &[u8]| {
    assert!(!matches!(parse_manifest(bytes, MANIFEST), Ok(Document::Index(_))));
    assert!(!matches!(parse_manifest(bytes, INDEX), Ok(Document::Manifest(_))));
    match parse_manifest(bytes, "") {
        Ok(Document::Manifest(manifest)) => assert!(manifest.layers.len() <= 500),
        Ok(Document::Index(_)) => {}
        Err(why) => assert!(!why.is_empty()),
    }
});
