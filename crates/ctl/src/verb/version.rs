//! `podbay version`.

use std::io::Write;

use cri_proto::v1;

use crate::error::Error;
use crate::link::{LOOK, Link, answer, within};

pub async fn run(link: &Link, out: &mut dyn Write) -> Result<(), Error> {
    let request = within(LOOK, v1::VersionRequest::default());
    let version = answer("Version", link.runtime().version(request).await)?;
    super::print(out, &render(&version))
}

fn render(version: &v1::VersionResponse) -> String {
    format!(
        "podbay   {}\nruntime  {} {}\nCRI      {}\n",
        env!("CARGO_PKG_VERSION"),
        version.runtime_name,
        version.runtime_version,
        version.runtime_api_version,
    )
}
