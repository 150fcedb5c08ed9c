//! A file that is given up when the disk is full, so that records can still be erased, and taken back
//! when there is room again.

use std::{fs::File, path::PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// In bytes: some commits' worth of pages.
const SIZE: u64 = 1 << 20;

pub(crate) struct Reserve {
    path: PathBuf,
    /// Whether it is known to be there.
    taken: bool,
}

impl Reserve {
    /// Takes nothing yet.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, taken: false }
    }

    /// Without room for it there is no reserve, and none is needed until there was.
    pub(crate) fn take(&mut self) {
        if self.taken {
            return;
        }
        let taken = File::create(&self.path)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?));
        self.taken = taken.is_ok();
        if !self.taken {
            self.remove();
        }
    }

    pub(crate) fn give_up(&mut self) {
        tracing::warn!(file = %self.path.display(), "the disk is full; the reserve is given up to erase records");
        self.remove();
    }

    fn remove(&mut self) {
        self.taken = false;
        let _ = std::fs::remove_file(&self.path);
    }
}
