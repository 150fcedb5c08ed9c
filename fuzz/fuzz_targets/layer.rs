//! A layer's archive: whatever it says, nothing beside the directory it is unpacked into changes,
//! and what it makes stays within the limits.
//!
//! Each input is unpacked twice: as it is, and with the checksums of its headers put right, since
//! few changes get by them. There a link can also name the neighbour's absolute path: [`NEIGHBOUR`]
//! in the input stands for it.
#![no_main]

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use images::unpack::{Limits, unpack};
use libfuzzer_sys::fuzz_target;

/// What stands for the path of what must not be touched; long enough for it.
const NEIGHBOUR: &[u8] = b"/the/neighbour//////////////////////////////////////////////////";
const LIMITS: Limits = Limits { names: 200, bytes: 1 << 20, ratio: 100, free: 1 << 20, reserve: 0 };

/// Has `root`, for a round, and `neighbour`, for ever.
static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = fuzz::place("layer-");
    fs::create_dir(place.join("neighbour")).expect("a directory in it");
    fs::write(place.join("neighbour/file"), "untouched").expect("a file in that");
    place
});

fuzz_target!(|archive: &[u8]| {
    try_unpack(archive);
    let mut mended = archive.to_vec();
    name_the_neighbour(&mut mended);
    fuzz::mend(&mut mended);
    if mended != archive {
        try_unpack(&mended);
    }
});

fn try_unpack(archive: &[u8]) {
    let root = PLACE.join("root");
    fs::create_dir(&root).expect("the last round's is gone");
    let before = neighbourhood();
    let fd = sys::beneath::open_root(&root).expect("it was just made");
    let unpacked = unpack(archive, &fd, &LIMITS);
    assert_eq!(neighbourhood(), before, "something beside the root changed");
    let names = count(&root);
    if let Ok(unpacked) = unpacked {
        // Directories that only had to be there are told of, and counted or implied.
        assert!(names <= unpacked.names + unpacked.implied.len() as u64);
        assert!(unpacked.names <= LIMITS.names);
    }
    fs::remove_dir_all(&root).expect("what was unpacked can be removed");
}

/// All that is beside the root, with what changes when anything of it is touched.
fn neighbourhood() -> Vec<(PathBuf, [u64; 6])> {
    let mut seen = Vec::new();
    for path in [PLACE.join("neighbour"), PLACE.join("neighbour/file")] {
        let stat = fs::symlink_metadata(&path).expect("it is there");
        let changed = [stat.ctime().cast_unsigned(), stat.ctime_nsec().cast_unsigned()];
        let kind = [stat.mode().into(), stat.nlink(), stat.size(), stat.ino()];
        seen.push((path, [changed[0], changed[1], kind[0], kind[1], kind[2], kind[3]]));
    }
    for dir in [PLACE.clone(), PLACE.join("neighbour")] {
        let mut names: Vec<_> = entries(&dir).map(|path| (path, [0; 6])).collect();
        names.sort();
        seen.extend(names);
    }
    seen
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it can be read").path())
}

fn count(dir: &Path) -> u64 {
    let each = |path: PathBuf| match fs::symlink_metadata(&path).expect("it is there").is_dir() {
        true => 1 + count(&path),
        false => 1,
    };
    entries(dir).map(each).sum()
}

fn name_the_neighbour(archive: &mut [u8]) {
    let path = PLACE.join("neighbour");
    let path = path.as_os_str().as_encoded_bytes();
    let mut at = 0;
    while let Some(place) = archive.get_mut(at..at + NEIGHBOUR.len()) {
        if place == NEIGHBOUR && path.len() <= NEIGHBOUR.len() {
            place.fill(b'/');
            place[..path.len()].copy_from_slice(path);
        }
        at += 1;
    }
}
