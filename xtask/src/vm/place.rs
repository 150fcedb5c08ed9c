//! Where things are, all beneath `target/vm`:
//!
//! | | |
//! |---|---|
//! | `image-KEY/` | the machine's own disk, its kernel and initrd; made once |
//! | `run/PID/` | what one run needs while it lasts |
//! | `out/JOB/` | what the last run of a job has left |

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use crate::files::{make_dir, remove};

pub(super) struct Place {
    pub vm: PathBuf,
    run: PathBuf,
}

impl Place {
    pub(super) fn new() -> Result<Self, String> {
        let vm = crate::root().join("target/vm");
        let all = vm.join("run");
        sweep(&all);
        let run = all.join(process::id().to_string());
        make_dir(&run)?;
        Ok(Self { vm, run })
    }

    /// A file or folder that goes with this run.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// An empty folder for what a job leaves.
    pub(super) fn out(&self, job: &str) -> Result<PathBuf, String> {
        let out = self.vm.join("out").join(job);
        remove(&out)?;
        make_dir(&out)?;
        Ok(out)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.run);
    }
}

/// Removes what runs that were killed have left.
fn sweep(all: &Path) {
    for run in fs::read_dir(all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(run.file_name()).exists() {
            let _ = fs::remove_dir_all(run.path());
        }
    }
}
