//! What turns a bundle into processes. There are two: the one built in, and any runc-like binary.
//! What they make is watched, signalled and recorded elsewhere, the same for both.

pub mod binary;
pub mod builtin;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;
use shim_api::Size;
use sys::cgroup::Cgroup;

use crate::{bundle::Bundle, error::Error, source::Source, stdio::Ends};

/// A container to be made.
pub struct Making<'a> {
    pub id: &'a str,
    pub bundle: &'a Bundle,
    pub ends: Ends,
    /// Where to send the terminal, if it has one.
    pub console: Option<&'a Path>,
    pub no_pivot: bool,
    pub within: Duration,
}

/// A container that was made, and waits to be started. Its init is a child of this process.
pub struct Made {
    pub pid: u32,
    /// Ends without a word when the program runs; else has a [`crate::program::Failure`] in it.
    pub running: Option<Source>,
}

/// A container to be started.
pub struct Starting<'a> {
    pub id: &'a str,
    pub bundle: &'a Bundle,
    pub running: Option<Source>,
    pub within: Duration,
}

/// A command to be run in a container.
pub struct Exec<'a> {
    pub id: &'a str,
    pub bundle: &'a Bundle,
    /// The container's init.
    pub init: u32,
    pub cgroup: Option<&'a Cgroup>,
    pub args: &'a [String],
    /// With a terminal, they are not seen by the command.
    pub ends: Ends,
    pub terminal: Option<Terminal<'a>>,
    pub within: Duration,
}

/// A terminal that a command shall have.
pub struct Terminal<'a> {
    /// Where to send it.
    pub console: &'a Path,
    pub size: Size,
}

/// A container to be unmade. It may never have been, or only half.
pub struct Unmaking<'a> {
    pub id: &'a str,
    pub bundle: &'a Bundle,
    pub within: Duration,
}

#[async_trait]
pub trait Runtime: Send + Sync {
    /// Makes a container up to the point where it would run its program. What is half made when
    /// it fails is for `unmake`.
    async fn make(&self, making: Making<'_>) -> Result<Made, Error>;

    /// Lets it run its program, and returns when it does.
    async fn start(&self, starting: Starting<'_>) -> Result<(), Error>;

    /// Runs a command in it, and gives the pid: a child of this process.
    async fn exec(&self, exec: Exec<'_>) -> Result<u32, Error>;

    /// Sets its limits: all of them, or none.
    async fn update(
        &self,
        id: &str,
        cgroup: Option<&Cgroup>,
        resources: &LinuxResources,
        within: Duration,
    ) -> Result<(), Error>;

    /// Forgets it and takes its cgroup away. Its processes are dead. Idempotent.
    async fn unmake(&self, unmaking: Unmaking<'_>) -> Result<(), Error>;
}

/// A file of ours for a while: it goes when this is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in the pod's directory, and goes with that at the latest.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads a pipe to its end: the report of a program that could not be run, or nothing.
async fn report(pipe: &Source) -> std::io::Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), [0; 1024]);
    while let n @ 1.. = pipe.read(&mut piece).await? {
        all.extend_from_slice(&piece[..n]);
    }
    Ok(all)
}

/// Gives the pipe's reading end away for watching.
fn watch(pipe: OwnedFd) -> Result<Source, Error> {
    Source::new(pipe).map_err(Error::kernel("watching a pipe"))
}
