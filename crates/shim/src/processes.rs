//! Signals to processes, by descriptor, so that they never reach another that was given the same
//! pid; and to whole trees and cgroups of them.

use std::{collections::BTreeSet, io, os::fd::OwnedFd, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sys::cgroup::Cgroup;
use tokio::time::{Instant, sleep};

use crate::error::Error;

/// How often a tree is looked at again for children that were born while it was killed.
const ROUNDS: usize = 4;

/// Holds a process. An error if it has been reaped.
pub fn hold(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal to a held process. One that has ended is no error.
pub fn send(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

/// The signal of this number.
pub fn signal(number: u32) -> Result<Signal, Error> {
    let unknown = || Error::bad("the signal", format!("there is no signal {number}"));
    let number = i32::try_from(number).map_err(|_| unknown())?;
    if !(1..=64).contains(&number) {
        return Err(unknown());
    }
    // SAFETY: it is the number of a signal, and nothing is done with it but to hand it to the
    // kernel, which refuses those that it does not know.
    Ok(unsafe { Signal::from_raw_unchecked(number) })
}

/// Kills a child of ours, which we have not reaped yet, and everything that descends from it. A
/// pid is signalled only if it was seen in the tree after we held its process.
pub fn kill_tree(root: u32) {
    for _ in 0..ROUNDS {
        let held: Vec<(u32, OwnedFd)> =
            tree(root).into_iter().filter_map(|pid| Some((pid, hold(pid).ok()?))).collect();
        let still = tree(root);
        for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            // One that is gone already is what we want.
            let _ = send(process, Signal::KILL);
        }
        if still.len() <= 1 {
            return;
        }
    }
}

/// Kills what is left of a session in a cgroup: what has been orphaned is in no tree any more. The
/// session's leader has not been reaped yet, so that no other session has its number.
pub fn kill_session(cgroup: &Cgroup, leader: u32) {
    let members = || {
        let pids = cgroup.pids().unwrap_or_default().into_iter();
        pids.filter(|pid| session(*pid) == Some(leader)).collect::<Vec<u32>>()
    };
    let held: Vec<(u32, OwnedFd)> =
        members().into_iter().filter_map(|pid| Some((pid, hold(pid).ok()?))).collect();
    let still = members();
    for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        // One that is gone already is what we want.
        let _ = send(process, Signal::KILL);
    }
}

/// Field 6 of `/proc/<pid>/stat`.
fn session(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(6 - 3)?.parse().ok()
}

/// The process and its descendants, as `/proc` has them now.
fn tree(root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut unseen = vec![root];
    while let Some(pid) = unseen.pop() {
        if found.insert(pid) {
            unseen.extend(children(pid));
        }
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// Sends a signal to every process of a cgroup, once. A pid is signalled only if it was seen in
/// the cgroup after we held its process. Gives how many there were.
pub fn send_all(cgroup: &Cgroup, signal: Signal) -> io::Result<usize> {
    let held: Vec<(u32, OwnedFd)> =
        cgroup.pids()?.into_iter().filter_map(|pid| Some((pid, hold(pid).ok()?))).collect();
    let still = cgroup.pids()?;
    for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        send(process, signal)?;
    }
    Ok(still.len())
}

/// Kills the processes of a cgroup until none is left. Unlike [`Cgroup::kill`] it does not block
/// the thread meanwhile.
pub async fn kill_all(cgroup: &Cgroup, within: Duration) -> io::Result<()> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(1);
    while send_all(cgroup, Signal::KILL)? > 0 {
        if Instant::now() >= deadline {
            let why = format!("processes {:?} do not die", cgroup.pids()?);
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}
