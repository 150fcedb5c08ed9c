//! Why libcontainer failed. Its errors lose their causes on the way from one of its processes to
//! the next, but each cause is traced where it happens: those traces are kept, for as long as one
//! copy of this process lives, and the first of them is what went wrong.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
};

use rustix::fs::{MemfdFlags, memfd_create};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// The most that is kept of a trace, in bytes.
const LONGEST: usize = 1024;

/// What has been traced. It is a file without a name, so that copies of the process write to it
/// too, also where there is no file system of ours any more.
pub struct Blame(Option<File>);

impl Blame {
    /// Listens from now on, to everything in this process and its copies. Once per process.
    pub fn listen() -> Self {
        let listen = || {
            let heard = File::from(memfd_create(c"blame", MemfdFlags::CLOEXEC).ok()?);
            let ear = Ear(heard.try_clone().ok()?);
            tracing::subscriber::set_global_default(ear).ok()?;
            Some(heard)
        };
        Self(listen())
    }

    /// Adds to these words of libcontainer what was traced first.
    pub fn explain(&self, words: String) -> String {
        let mut first = vec![0; LONGEST];
        let read = self.0.as_ref().and_then(|heard| heard.read_at(&mut first, 0).ok());
        let first = String::from_utf8_lossy(&first[..read.unwrap_or(0)]).into_owned();
        match first.lines().next() {
            Some(cause) if !words.contains(cause) => format!("{words}: {cause}"),
            _ => words,
        }
    }
}

struct Ear(File);

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut trace = Trace::default();
        event.record(&mut trace);
        let mut text = format!("{}{}", trace.message, trace.fields).replace('\n', " ");
        text.truncate(text.floor_char_boundary(LONGEST - 1));
        // One write, so that two processes do not mix their words. There is nobody to tell of a
        // failure of this.
        let _ = (&self.0).write_all(format!("{text}\n").as_bytes());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Trace {
    message: String,
    fields: String,
}

impl Visit for Trace {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name}: {value:?}"),
        };
    }
}
