//! One podbay-sandboxer under test, in the place of the daemon that it serves.

use std::{
    fs,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Options, Place, daemon::program, eventually, is_true};

impl Options {
    /// With a handler `sandboxer`, whose sandboxes a [`Sandboxer`] keeps, besides `podbay`.
    pub fn with_sandboxer(self, place: &Place) -> Self {
        let address = format!("{:?}", place.sandboxer().join("s.sock").display().to_string());
        // One that a test freezes is to be waited for, however long the test takes meanwhile.
        self.set("sandboxers.namespaces.address", &address)
            .set("sandboxers.namespaces.deadline", r#""5m""#)
            .set("handlers.podbay.controller", r#""namespaces""#)
            .set("handlers.sandboxer.controller", r#""sandboxer""#)
            .set("handlers.sandboxer.sandboxer", r#""namespaces""#)
    }
}

/// Killed when it is dropped; its sandboxes are the daemon's to clean up.
pub struct Sandboxer {
    place: Place,
    process: Child,
}

impl Sandboxer {
    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// It does not.
    pub async fn start(place: &Place) -> Self {
        let process = spawn(place);
        let sandboxer = Self { place: place.clone(), process };
        sandboxer.listens().await;
        sandboxer
    }

    async fn listens(&self) {
        let socket = self.place.sandboxer().join("s.sock");
        let listens = async || is_true(UnixStream::connect(&socket).is_ok());
        eventually("the sandboxer listens", listens).await;
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }

    /// Starts one that was killed.
    ///
    /// # Panics
    /// It does not listen.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.place);
        self.listens().await;
    }

    /// Has it hang: it is there, and does not answer.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("the sandboxer runs");
    }
}

impl Drop for Sandboxer {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(place: &Place) -> Child {
    let folder = place.sandboxer();
    fs::create_dir_all(&folder).expect("a test can make its folders");
    let log = fs::File::options().create(true).append(true).open(folder.join("sandboxer.log"));
    Command::new(program("podbay-sandboxer"))
        .args(["--kind", "namespaces", "--socket"])
        .arg(folder.join("s.sock"))
        .arg("--state")
        .arg(folder.join("state"))
        .arg("--root")
        .arg(folder.join("root"))
        .stdin(Stdio::null())
        .stderr(log.expect("a test can write its files"))
        .spawn()
        .expect("podbay-sandboxer is a program")
}
