//! What the verbs do: ask, and print. Rendering is kept apart from asking, so that it can be tested
//! without a runtime.

mod archive;
mod end;
mod exec;
mod image;
mod inspect;
mod logs;
mod pods;
mod ps;
mod pull;
mod quarantine;
mod status;
mod version;

pub use end::end_pod;
pub use exec::call as exec_sync;
pub use image::remove as remove_image;
pub use logs::Watch;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::args::{Image, Quarantine, Verb};
use crate::error::Error;
use crate::link::Link;

pub async fn run(socket: &Path, verb: Verb, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let link = Link::open(socket).await?;
    match verb {
        Verb::Status(output) => return status::run(&link, output.output, out).await,
        Verb::Exec(exec) => return exec::run(&link, exec, out).await,
        Verb::Version => version::run(&link, out).await,
        Verb::Pods(output) => pods::run(&link, output.output, out).await,
        Verb::Ps(ps) => ps::run(&link, &ps, out).await,
        Verb::Inspect(one) => inspect::run(&link, &one.id, out).await,
        Verb::Logs(logs) => logs::run(&link, &logs, out).await,
        Verb::Stop(stop) => end::stop(&link, &stop, out).await,
        Verb::Rm(rm) => end::rm(&link, &rm, out).await,
        Verb::Image(image) => images(&link, image, out).await,
        Verb::Quarantine(Quarantine::Ls(output)) => quarantine::ls(&link, output.output, out).await,
        Verb::Quarantine(Quarantine::Rm { keys }) => quarantine::rm(&link, &keys, out).await,
        Verb::Demo(_) => unreachable!("the demo has a daemon of its own and comes not here"),
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn images(link: &Link, verb: Image, out: &mut dyn Write) -> Result<(), Error> {
    match verb {
        Image::Ls(output) => image::ls(link, output.output, out).await,
        Image::Rm { images } => image::rm(link, &images, out).await,
        Image::Tag { image, name } => image::tag(link, image, name).await,
        Image::Pull(pull) => pull::run(link, pull, out).await,
        Image::Load { file } => archive::load(link, &file, out).await,
        Image::Save { image, output } => archive::save(link, image, &output).await,
    }
}

/// Prints text as it is.
fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

/// Prints JSON for people who read it too.
fn print_json(out: &mut dyn Write, value: &Value) -> Result<(), Error> {
    print(out, &format!("{value:#}\n"))
}
