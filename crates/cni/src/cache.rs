//! The result files that `libcni` keeps, written for other tools (and another runtime that takes the
//! node over). We never read them: what we know is in the caller's records.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::attachment::Attachment;

/// Writes the file of an attachment that was made.
pub(crate) fn put(dir: &Path, attachment: &Attachment, result: &Value) -> io::Result<()> {
    let file = place(dir, attachment);
    if let Some(parent) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let half = half_written(&file);
    let mut to = fs::OpenOptions::new();
    let mut to = to.write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    to.write_all(content(attachment, result).to_string().as_bytes())?;
    fs::rename(half, file)
}

/// Removes the file of an attachment, and what a crash may have left of it.
pub(crate) fn erase(dir: &Path, attachment: &Attachment) -> io::Result<()> {
    let file = place(dir, attachment);
    for path in [half_written(&file), file] {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The three names hold no slash: a plan refuses them else.
fn place(dir: &Path, attachment: &Attachment) -> PathBuf {
    let (network, container) = (attachment.network().name(), attachment.container());
    dir.join("results").join(format!("{network}-{container}-{}", attachment.ifname()))
}

fn half_written(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    file.with_file_name(name)
}

fn content(attachment: &Attachment, result: &Value) -> Value {
    json!({
        "kind": "cniCacheV1",
        "containerId": attachment.container(),
        "config": base64(attachment.network().text().as_bytes()),
        "ifName": attachment.ifname(),
        "networkName": attachment.network().name(),
        "netns": attachment.netns(),
        "cniArgs": attachment.args(),
        "capabilityArgs": attachment.capabilities(),
        "result": result,
    })
}

/// As Go's JSON writes bytes: the standard alphabet, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let sextet = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit > three.len() { '=' } else { char::from(ALPHABET[sextet]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::parse_conflist;

    #[test]
    fn base64_is_as_the_rfc_has_it() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn the_file_is_where_and_what_libcni_would_write_and_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let conf = br#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}]}"#;
        let network = parse_conflist(conf).unwrap();
        let plan = Attachment::plan(&network, "c1", Path::new("/run/n"), "eth0").unwrap();
        let plan = plan.with_args([("K".to_owned(), "v".to_owned())]).unwrap();
        put(dir.path(), &plan, &json!({"cniVersion": "1.0.0"})).unwrap();
        let file = dir.path().join("results/pods-c1-eth0");
        let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(written["kind"], "cniCacheV1");
        assert_eq!(written["cniArgs"], json!([["K", "v"]]));
        assert_eq!(written["result"], json!({"cniVersion": "1.0.0"}));
        assert_eq!(written["config"], base64(conf));
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        erase(dir.path(), &plan).unwrap();
        erase(dir.path(), &plan).unwrap();
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 0);
    }
}
