//! `podbay status`: what is ready, why what is not is not, and the handlers.

use std::io::Write;
use std::process::ExitCode;

use cri_proto::v1;

use crate::args::Format;
use crate::error::Error;
use crate::link::{LOOK, Link, answer, within};
use crate::paint::{self, Ink, paint};
use crate::words::or_dash;
use crate::{json, table};

/// Fails, after printing, when something is not ready: then it can be waited for.
pub async fn run(link: &Link, format: Format, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let request = within(LOOK, v1::StatusRequest { verbose: format == Format::Json });
    let status = answer("Status", link.runtime().status(request).await)?;
    match format {
        Format::Json => super::print_json(out, &json::runtime_status(&status))?,
        Format::Table => super::print(out, &render(&status, paint::wanted()))?,
    }
    let ready = conditions(&status).iter().all(|condition| condition.status);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn conditions(status: &v1::StatusResponse) -> &[v1::RuntimeCondition] {
    status.status.as_ref().map_or(&[], |status| &status.conditions)
}

fn render(status: &v1::StatusResponse, colour: bool) -> String {
    let rows: Vec<_> = conditions(status).iter().map(condition).collect();
    let mut text = table::render(["CONDITION", "STATUS", "REASON", "MESSAGE"], &rows);
    if colour {
        text = text.replace(" NOT READY", &paint(true, Ink::Bad, " NOT READY"));
    }
    let handlers: Vec<_> = status.runtime_handlers.iter().map(handler).collect();
    if !handlers.is_empty() {
        let head = ["HANDLER", "USER NAMESPACES", "RECURSIVE READ-ONLY"];
        text = format!("{text}\n{}", table::render(head, &handlers));
    }
    text
}

fn condition(condition: &v1::RuntimeCondition) -> [String; 4] {
    let status = if condition.status { "ready" } else { "NOT READY" };
    [
        condition.r#type.clone(),
        status.to_owned(),
        or_dash(&condition.reason),
        or_dash(&condition.message),
    ]
}

fn handler(handler: &v1::RuntimeHandler) -> [String; 3] {
    let name = if handler.name.is_empty() { "(default)" } else { &handler.name };
    let features = handler.features.unwrap_or_default();
    let yes = |can: bool| if can { "yes" } else { "no" }.to_owned();
    [name.to_owned(), yes(features.user_namespaces), yes(features.recursive_read_only_mounts)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(name: &str, status: bool, reason: &str, message: &str) -> v1::RuntimeCondition {
        v1::RuntimeCondition {
            r#type: name.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_is_not_ready_says_why() {
        let features =
            v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        let handler =
            |name: &str| v1::RuntimeHandler { name: name.to_owned(), features: Some(features) };
        let status = v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", true, "", ""),
                    condition(
                        "NetworkReady",
                        false,
                        "NoNetworkConfig",
                        "no file in /etc/cni/net.d",
                    ),
                ],
            }),
            runtime_handlers: vec![handler(""), handler("runc")],
            ..Default::default()
        };
        assert_eq!(render(&status, false), include_str!("../../golden/status.txt"));
        assert!(render(&status, true).contains("\x1b[31m NOT READY\x1b[0m"));
    }
}
