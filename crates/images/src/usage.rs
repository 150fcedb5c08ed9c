//! How much of the disk images and containers take.
//!
//! Of layers it was counted when they were unpacked. What a container has written is counted when
//! somebody asks, by a walk over its files: nothing is measured that nobody wants to know. However
//! often it is asked, a twentieth of the time at most is spent on one container: what took long to
//! count is good for long, and what takes no time is always new. Who asks while it is being counted
//! waits for that and has the same.

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::AddAssign,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use names::ContainerId;
use rustix::io::Errno;
use sys::beneath::{self, Order, Visit};

use crate::{
    error::{At, Error},
    rootfs::UPPER,
    store::Store,
};

/// Space on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.bytes += more.bytes;
        self.inodes += more.inodes;
    }
}

/// What all layers take, as it was counted when they were unpacked.
pub(crate) fn layers(store: &Store) -> Usage {
    let mut usage = Usage::default();
    for layer in store.index().layers.values() {
        usage += Usage { bytes: layer.bytes, inodes: layer.names };
    }
    usage
}

/// For how many times as long as it took to count something that is good.
const GOOD_FOR: u32 = 20;

/// What was counted, and when.
#[derive(Clone, Copy, Debug)]
struct Measure {
    usage: Usage,
    at: Instant,
    took: Duration,
}

impl Measure {
    fn is_good(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < self.took * GOOD_FOR
    }
}

/// The last measures of containers.
#[derive(Debug, Default)]
pub(crate) struct Measures(Mutex<HashMap<ContainerId, Arc<Mutex<Option<Measure>>>>>);

impl Measures {
    pub fn forget(&self, id: &ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn of(&self, id: &ContainerId) -> Arc<Mutex<Option<Measure>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(id.clone()).or_default())
    }
}

/// What a container has written; nothing if there is no such container. Blocks.
pub(crate) fn container(store: &Store, id: &ContainerId) -> Result<Usage, Error> {
    let Some(place) = store.place(id)? else { return Ok(Usage::default()) };
    let measure = store.measures.of(id);
    let mut last = measure.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    if let Some(last) = last.filter(|last| last.is_good(begun)) {
        return Ok(last.usage);
    }
    let path = store.root().join("containers").join(id.as_str());
    let usage = match beneath::open_listable(&place, UPPER.as_bytes()) {
        Ok(upper) => tree(&upper).at("measuring", &path)?,
        // It is read-only, or on its way out.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Usage::default(),
        Err(error) => return Err(Error::io("measuring", &path, error)),
    };
    let at = Instant::now();
    *last = Some(Measure { usage, at, took: at - begun });
    if !store.has_container(id) {
        // It went away meanwhile, and was forgotten before this.
        store.measures.forget(id);
    }
    Ok(usage)
}

/// What all containers have written. One that cannot be measured is left out. Blocks.
pub(crate) fn containers(store: &Store) -> Usage {
    let mut all = Usage::default();
    for id in store.containers() {
        match container(store, &id) {
            Ok(usage) => all += usage,
            Err(error) => {
                tracing::warn!(container = %id, error = names::chain(&error), "it cannot be measured");
            }
        }
    }
    all
}

/// Counts a tree, hard links once. A tree that changes meanwhile is counted as it was met; one that
/// is rearranged so that the way back is lost, as far as that.
fn tree(root: impl AsFd) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let walked = beneath::walk(root, Order::Found, &mut |visit| {
        let Visit::Entry { dir, name, .. } = visit else { return Ok(()) };
        if let Some(stat) = beneath::stat(dir, name)?
            && (stat.st_nlink == 1 || linked.insert((stat.st_dev, stat.st_ino)))
        {
            let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
            usage += Usage { bytes, inodes: 1 };
        }
        Ok(())
    });
    match walked {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::STALE) => Err(error),
        _ => Ok(usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_count_is_good_for_long() {
        let at = Instant::now();
        let measure = |took| Measure { usage: Usage::default(), at, took };
        let (fast, slow) = (measure(Duration::from_micros(20)), measure(Duration::from_secs(2)));
        let later = at + Duration::from_millis(1);
        assert!(!fast.is_good(later) && slow.is_good(later));
        assert!(slow.is_good(at + Duration::from_secs(39)));
        assert!(!slow.is_good(at + Duration::from_secs(40)));
    }
}
