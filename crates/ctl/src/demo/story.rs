//! How the demo tells what it does: a line for each step, with what it took.

use std::io::Write;
use std::time::Instant;

use crate::error::Error;
use crate::paint::{self, Ink, paint};
use crate::words::took;

pub struct Story<'a> {
    out: &'a mut dyn Write,
    colour: bool,
}

impl<'a> Story<'a> {
    pub fn begin(out: &'a mut dyn Write) -> Result<Story<'a>, Error> {
        let mut story = Story { out, colour: paint::wanted() };
        let title = story.ink(Ink::Strong, "Podbay: one pod, from nothing, and back to nothing.");
        story.tell(&format!("{title}\n\n"))?;
        Ok(story)
    }

    /// A step that is done.
    pub fn step(&mut self, what: &str, begun: Instant, about: &str) -> Result<(), Error> {
        let what = self.ink(Ink::Strong, &format!("{what:<13}"));
        let took = self.ink(Ink::Good, &format!("{:>8}", took(begun.elapsed())));
        self.tell(&format!("  {what} {took}   {about}\n"))
    }

    /// What several steps took together.
    pub fn sum(&mut self, what: &str, begun: Instant) -> Result<(), Error> {
        let took = self.ink(Ink::Good, &took(begun.elapsed()));
        self.tell(&format!("\n  {what}: {took}.\n\n"))
    }

    /// What somebody else said.
    pub fn quote(&mut self, text: &str) -> Result<(), Error> {
        let bar = self.ink(Ink::Faint, "|");
        text.lines().try_for_each(|line| self.tell(&format!("      {bar} {line}\n")))
    }

    pub fn end(&mut self) -> Result<(), Error> {
        self.tell(
            "\nNothing is left. To use Podbay under a kubelet, start podbayd and give the kubelet\n\
             --container-runtime-endpoint=unix:///run/podbay/podbay.sock; crictl takes the same.\n",
        )
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        paint(self.colour, ink, text)
    }

    /// At once, for somebody is watching.
    fn tell(&mut self, text: &str) -> Result<(), Error> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(Error::Output)
    }
}
