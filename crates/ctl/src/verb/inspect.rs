//! `podbay inspect`: everything that the runtime tells about one pod or container.

use std::io::Write;

use cri_proto::v1;
use serde_json::{Value, json};

use crate::error::Error;
use crate::find::{self, Thing};
use crate::json;
use crate::link::{LOOK, Link, answer, within};

pub async fn run(link: &Link, wanted: &str, out: &mut dyn Write) -> Result<(), Error> {
    let shown = match find::thing(link, wanted).await? {
        Thing::Pod(pod) => self::pod(link, pod.id).await?,
        Thing::Container(container) => self::container(link, container.id).await?,
    };
    super::print_json(out, &shown)
}

async fn pod(link: &Link, id: String) -> Result<Value, Error> {
    let request = within(LOOK, v1::PodSandboxStatusRequest { pod_sandbox_id: id, verbose: true });
    let what = "PodSandboxStatus";
    let told = answer(what, link.runtime().pod_sandbox_status(request).await)?;
    let status = told.status.ok_or(Error::Odd { what, missing: "the status" })?;
    Ok(json!({ "status": json::pod_status(&status), "info": json::info(&told.info) }))
}

async fn container(link: &Link, id: String) -> Result<Value, Error> {
    let request = within(LOOK, v1::ContainerStatusRequest { container_id: id, verbose: true });
    let what = "ContainerStatus";
    let told = answer(what, link.runtime().container_status(request).await)?;
    let status = told.status.ok_or(Error::Odd { what, missing: "the status" })?;
    Ok(json!({ "status": json::container_status(&status), "info": json::info(&told.info) }))
}
