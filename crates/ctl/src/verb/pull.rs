//! `podbay image pull`: bars on a terminal, lines elsewhere. Runtimes that do not tell their
//! progress are asked without.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};

use cri_proto::admin::pull_image_response::Step;
use cri_proto::admin::{Credentials, LayerState, PullImageRequest, PullProgress};
use cri_proto::v1;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tonic::{Code, Request};

use crate::args::Pull;
use crate::error::Error;
use crate::link::{Link, answer};
use crate::words::{short, size};

/// No credentials are longer; what is longer is not a password.
const LONGEST_PASSWORD: u64 = 64 << 10;

/// A pull has no deadline of its own: the runtime gives up a download that stands still.
pub async fn run(link: &Link, pull: Pull, out: &mut dyn Write) -> Result<(), Error> {
    let credentials = credentials(&pull)?;
    let request = PullImageRequest { image: pull.image.clone(), credentials: credentials.clone() };
    let what = "PullImage";
    let mut steps = match link.admin().pull_image(request).await {
        Err(status) if status.code() == Code::Unimplemented => {
            return without_progress(link, pull.image, credentials, out).await;
        }
        answered => answer(what, answered)?,
    };
    let mut shown: Box<dyn Show> =
        if io::stderr().is_terminal() { Box::new(Bars::new()) } else { Box::new(Lines::default()) };
    loop {
        let step = steps.message().await;
        let step = step.map_err(|status| Error::Refused { what, status: status.into() })?;
        match step.ok_or(Error::Odd { what, missing: "its end" })?.step {
            Some(Step::Progress(progress)) => shown.show(&progress),
            Some(Step::Done(done)) => {
                shown.end();
                return super::print(out, &format!("{}\n", done.image_id));
            }
            // A step of a later version.
            None => {}
        }
    }
}

async fn without_progress(
    link: &Link,
    image: String,
    credentials: Option<Credentials>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let auth = credentials.map(|credentials| v1::AuthConfig {
        username: credentials.username,
        password: credentials.password,
        ..Default::default()
    });
    let image = Some(v1::ImageSpec { image, ..Default::default() });
    let request = Request::new(v1::PullImageRequest { image, auth, sandbox_config: None });
    let pulled = answer("PullImage", link.images().pull_image(request).await)?;
    super::print(out, &format!("{}\n", pulled.image_ref))
}

fn credentials(pull: &Pull) -> Result<Option<Credentials>, Error> {
    let Some(username) = pull.username.clone() else { return Ok(None) };
    let mut password = String::new();
    let mut input = io::stdin().lock().take(LONGEST_PASSWORD);
    input.read_to_string(&mut password).map_err(Error::Input)?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    Ok(Some(Credentials { username, password }))
}

/// Something that shows how far a pull is.
trait Show {
    fn show(&mut self, progress: &PullProgress);
    fn end(&mut self);
}

/// One bar for each layer, on a terminal.
struct Bars {
    all: MultiProgress,
    layers: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Bars {
        Bars { all: MultiProgress::new(), layers: BTreeMap::new() }
    }

    fn bar(all: &MultiProgress, digest: &str) -> ProgressBar {
        let form = "{prefix}  {bar:30}  {decimal_bytes:>9} / {decimal_total_bytes:<9}  {msg}";
        let style = ProgressStyle::with_template(form).expect("the form is well formed");
        let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
        all.add(bar.with_prefix(short(digest).to_owned()))
    }
}

impl Show for Bars {
    fn show(&mut self, progress: &PullProgress) {
        let digest = &progress.layer_digest;
        let fresh = || Bars::bar(&self.all, digest);
        let bar = self.layers.entry(digest.clone()).or_insert_with(fresh);
        bar.set_length(progress.total.max(progress.done));
        bar.set_position(progress.done);
        bar.set_message(said(progress.state));
        if is_over(progress.state) && !bar.is_finished() {
            bar.finish();
        }
    }

    fn end(&mut self) {
        self.layers.values().for_each(ProgressBar::finish);
    }
}

/// A line whenever a layer comes to another state, for logs.
#[derive(Default)]
struct Lines(BTreeMap<String, i32>);

impl Lines {
    fn line(&mut self, progress: &PullProgress) -> Option<String> {
        let known = self.0.insert(progress.layer_digest.clone(), progress.state);
        let total = match progress.total {
            0 => String::new(),
            total => format!(" ({})", size(total)),
        };
        let line = || format!("{} {}{total}", short(&progress.layer_digest), said(progress.state));
        (known != Some(progress.state)).then(line)
    }
}

impl Show for Lines {
    fn show(&mut self, progress: &PullProgress) {
        if let Some(line) = self.line(progress) {
            eprintln!("{line}");
        }
    }

    fn end(&mut self) {}
}

fn said(state: i32) -> &'static str {
    match LayerState::try_from(state) {
        Ok(LayerState::Waiting) => "waiting",
        Ok(LayerState::Downloading) => "downloading",
        Ok(LayerState::Unpacking) => "unpacking",
        Ok(LayerState::Done) => "done",
        Ok(LayerState::Present) => "here already",
        Err(_) => "",
    }
}

fn is_over(state: i32) -> bool {
    matches!(LayerState::try_from(state), Ok(LayerState::Done | LayerState::Present))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, state: LayerState) -> PullProgress {
        let layer_digest = format!("sha256:{}", "ab".repeat(32));
        PullProgress { layer_digest, done, total: 4_000_000, state: state.into() }
    }

    #[test]
    fn a_log_is_not_flooded() {
        let mut lines = Lines::default();
        let steps = [
            progress(0, LayerState::Downloading),
            progress(1_000_000, LayerState::Downloading),
            progress(4_000_000, LayerState::Unpacking),
            progress(4_000_000, LayerState::Done),
        ];
        let told: Vec<_> = steps.iter().filter_map(|step| lines.line(step)).collect();
        assert_eq!(
            told,
            [
                "ababababababa downloading (4.0MB)",
                "ababababababa unpacking (4.0MB)",
                "ababababababa done (4.0MB)"
            ]
        );
    }

    #[test]
    fn bars_end_with_their_layers() {
        let mut bars = Bars::new();
        bars.show(&progress(10, LayerState::Downloading));
        bars.show(&progress(4_000_000, LayerState::Done));
        assert_eq!(bars.layers.len(), 1);
        assert!(bars.layers.values().all(ProgressBar::is_finished));
    }
}
