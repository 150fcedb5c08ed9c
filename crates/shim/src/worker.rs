//! Work done in a copy of this process, which then ends: what may block, hang, change the whole
//! process, or leave children behind. Making a container does all four. The copy's orphans become ours,
//! because we are a subreaper.

use std::{
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::{error::Error, fork, processes, reaper::Reaper, source::Source};

/// The longest message of a copy about its failure, in bytes: a pipe must hold it, since it is
/// read only when the copy has ended.
const LONGEST: usize = 16 * 1024;

/// Does `work` in a copy of this process, which gets these descriptors, and gives its result. If it
/// takes longer than `within`, the copy and all its children are killed.
///
/// # Errors
/// Of class Internal with the words that `work` failed with.
pub async fn run<T: Serialize + DeserializeOwned, const N: usize>(
    reaper: &Reaper,
    doing: &'static str,
    within: Duration,
    fds: [OwnedFd; N],
    work: impl FnOnce([OwnedFd; N]) -> Result<T, String>,
) -> Result<T, Error> {
    let (result, report) = pipe_with(PipeFlags::CLOEXEC).map_err(Error::kernel(doing))?;
    let mut keep: Vec<RawFd> = fds.iter().map(OwnedFd::as_raw_fd).collect();
    keep.push(report.as_raw_fd());
    let pid = fork::fork(&keep, move || tell(report, &work(fds))).map_err(Error::kernel(doing))?;
    let mut ended = reaper.watch(pid);
    let source = Source::new(result).map_err(Error::kernel(doing))?;
    if timeout(within, &mut ended).await.is_err() {
        processes::kill_tree(pid);
        // It is killed, so that its end is near, unless a dead disk holds it.
        let _ = timeout(Duration::from_secs(1), ended).await;
        return Err(Error::Late { doing, within });
    }
    let words = |words: String| Error::Runtime { doing, words };
    let told = read_all(&source).map_err(Error::kernel(doing))?;
    serde_json::from_slice::<Result<T, String>>(&told)
        .map_err(|_| words("it ended without a word: see the log of the shim".to_owned()))?
        .map_err(words)
}

fn tell<T: Serialize>(report: OwnedFd, result: &Result<T, String>) -> i32 {
    let short = match result {
        Err(words) if words.len() > LONGEST => {
            &Err(words.chars().take(LONGEST / 4).collect::<String>())
        }
        result => result,
    };
    let told = serde_json::to_vec(short).unwrap_or_default();
    i32::from(std::fs::File::from(report).write_all(&told).is_err())
}

/// What is in the pipe. Its end may be held open by the copy's children.
fn read_all(source: &Source) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::with_capacity(LONGEST);
    while source.read_left(&mut all)?.is_some_and(|n| n > 0) {
        all.reserve(LONGEST);
    }
    Ok(all)
}
