//! Pages that are made from the code are as the code would make them now. `PODBAY_BLESS=1` makes
//! them so.

use std::fs;

const CONFIG: &str = "docs/config.md";

pub(crate) fn check() -> Result<(), String> {
    let root = crate::root();
    let read = |name: &str| {
        fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let page = config(&read("crates/config/src/default.toml")?);
    if std::env::var_os("PODBAY_BLESS").is_some() {
        return fs::write(root.join(CONFIG), page).map_err(|error| format!("{CONFIG}: {error}"));
    }
    if read(CONFIG).unwrap_or_default() == page {
        return Ok(());
    }
    Err(format!("{CONFIG} is not of today: PODBAY_BLESS=1 cargo xtask docs"))
}

fn config(defaults: &str) -> String {
    format!(
        "# The configuration\n\n`podbayd --config FILE`, or `/etc/podbay/config.toml` if it is there. TOML; a key that does not \
         exist is refused, with the nearest one that does.\n`podbayd config check` reads it and says whether it is good. All keys, \
         with their defaults (`podbayd config default`):\n\n```toml\n{defaults}```\n"
    )
}
