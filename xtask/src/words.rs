//! Nothing is in the tree that is not the project's: no built program, no secret.

use std::{fs, process::Command};

/// Texts that are in no file. They are put together here, so that this file has none either.
fn forbidden() -> Vec<String> {
    [("BEGIN RSA PRI", "VATE KEY"), ("BEGIN EC PRI", "VATE KEY"), ("BEGIN PRI", "VATE KEY")]
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .collect()
}

/// The largest file that is taken for a text somebody wrote, in bytes.
const LARGEST: usize = 1 << 20;

pub(crate) fn check() -> Result<(), String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(crate::root()).output();
    let listed = listed.map_err(|error| error.to_string())?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let forbidden = forbidden();
    let mut wrong = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let Ok(bytes) = fs::read(crate::root().join(name)) else { continue };
        if bytes.len() > LARGEST || bytes.starts_with(b"\x7fELF") {
            wrong.push(format!("{name} is too large, or a built program"));
        }
        let text = String::from_utf8_lossy(&bytes);
        for word in forbidden.iter().filter(|word| text.contains(word.as_str())) {
            wrong.push(format!("{name} holds {word:?}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}
