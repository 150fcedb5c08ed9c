//! The last step of a container's init, inside the container: what libcontainer does when all is
//! set up and the container may run.

use std::{
    collections::HashMap,
    fs,
    os::fd::{BorrowedFd, RawFd},
};

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::Spec;

use crate::{
    fork,
    program::{self, Failure},
};

/// Runs the program, or says why not through a pipe that ends by itself when the program runs.
#[derive(Clone)]
pub struct Payload {
    report: RawFd,
}

impl Payload {
    /// The descriptor must stay open in the process that makes the container.
    pub fn new(report: RawFd) -> Self {
        Self { report }
    }
}

impl Executor for Payload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let Some(process) = spec.process() else {
            return Err(ExecutorError::InvalidArg);
        };
        let labelled = process.selinux_label().as_deref().map_or(Ok(()), label);
        let failure = labelled.map_or_else(|failure| failure, |()| program::execute(process));
        // SAFETY: it was open when the container was made, and libcontainer has closed nothing
        // since, but marked it to be closed by `execve`, which has failed.
        failure.report(unsafe { BorrowedFd::borrow_raw(self.report) });
        fork::exit(failure.code)
    }

    /// Whether the program is there is found out by running it, so that a container without one
    /// can be created, and fails when it is started.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is given to the program, not to us.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// Gives the program its SELinux label, which libcontainer leaves out.
pub fn label(label: &str) -> Result<(), Failure> {
    if label.is_empty() {
        return Ok(());
    }
    let attribute = "/proc/thread-self/attr/exec";
    fs::write(attribute, label).map_err(Failure::on_the_way("setting the SELinux label"))
}
