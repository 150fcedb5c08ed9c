//! Faults on demand, for the tests of rollback and recovery. Without the feature `faults` this is
//! nothing at all.
//!
//! The file that `PODBAY_FAULT_FILE` names says what is to go wrong, so that a test can set and clear
//! it under a running daemon. `pod.Network:before:fail` fails the step `Network` of a pod before its
//! deed; `after` fails it when it is done (made, and yet an error); `crash` in place of `fail` kills
//! the daemon there, as SIGKILL does.

use crate::{Error, step::Step};

pub(crate) async fn before<S: Step>(step: S) -> Result<(), Error> {
    at(step, "before")
}

pub(crate) async fn after<S: Step>(step: S) -> Result<(), Error> {
    at(step, "after")
}

#[cfg(not(feature = "faults"))]
fn at<S: Step>(_: S, _: &str) -> Result<(), Error> {
    Ok(())
}

#[cfg(feature = "faults")]
fn at<S: Step>(step: S, when: &str) -> Result<(), Error> {
    let file = std::env::var_os("PODBAY_FAULT_FILE");
    let Some(fault) = file.and_then(|file| std::fs::read_to_string(file).ok()) else {
        return Ok(());
    };
    match fault.trim().strip_prefix(&format!("{}.{step:?}:{when}:", S::KIND)) {
        Some("fail") => Err(Error::Refused {
            class: names::Class::Internal,
            why: format!("a fault was asked for {when} {step:?}"),
        }),
        Some("crash") => {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            Ok(())
        }
        _ => Ok(()),
    }
}
