//! `podbay quarantine`: records that were set aside.

use std::io::Write;

use cri_proto::admin::{ListQuarantineRequest, Quarantined, RemoveQuarantinedRequest};
use serde_json::{Value, json};

use crate::args::Format;
use crate::error::Error;
use crate::link::{CHANGE, LOOK, Link, answer, within};
use crate::table;
use crate::words::{age, moment};

pub async fn ls(link: &Link, format: Format, out: &mut dyn Write) -> Result<(), Error> {
    let request = within(LOOK, ListQuarantineRequest {});
    let items = answer("ListQuarantine", link.admin().list_quarantine(request).await)?.items;
    match format {
        Format::Json => super::print_json(out, &items.iter().map(as_json).collect()),
        Format::Table => super::print(out, &render(&items, names::now())),
    }
}

fn render(items: &[Quarantined], now: i64) -> String {
    let row = |item: &Quarantined| {
        [item.key.clone(), item.kind.clone(), age(item.time, now), item.reason.clone()]
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    table::render(["KEY", "KIND", "AGE", "REASON"], &rows)
}

fn as_json(item: &Quarantined) -> Value {
    json!({
        "key": item.key,
        "kind": item.kind,
        "reason": item.reason,
        "time": moment(item.time),
    })
}

/// Removes each, and prints it when it is so.
pub async fn rm(link: &Link, keys: &[String], out: &mut dyn Write) -> Result<(), Error> {
    for key in keys {
        let request = within(CHANGE, RemoveQuarantinedRequest { key: key.clone() });
        let removed = link.admin().remove_quarantined(request).await;
        answer("RemoveQuarantined", removed)?;
        super::print(out, &format!("{key} removed\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_set_aside_says_why() {
        let item = Quarantined {
            key: "pod/abc".to_owned(),
            kind: "pod".to_owned(),
            reason: "its checksum is not that of its content".to_owned(),
            time: 1_000_000_000,
        };
        let shown = render(&[item], 61_000_000_000);
        assert_eq!(
            shown,
            "KEY       KIND   AGE   REASON\n\
             pod/abc   pod    60s   its checksum is not that of its content\n"
        );
    }
}
