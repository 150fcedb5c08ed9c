//! Removing by force all that a daemon under test may have left: of this test, when it is over, and
//! of earlier ones that were killed. Only what bears the name of its place is touched.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    time::Duration,
};

use rustix::mount::UnmountFlags;

use crate::{Place, eventually_within, is_true, process};

/// How long processes that were killed may take to be gone, and their cgroups to be empty.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes what killed test runs have left, once in a process.
pub(crate) fn abandoned() {
    static ONCE: Once = Once::new();
    let mut places = Vec::new();
    ONCE.call_once(|| places = Place::abandoned());
    for place in places {
        let base = place.base.clone();
        if apart(async move || all(&place).await).is_err() {
            crate::skip(&format!("what is left at {} will not go", base.display()));
        }
    }
}

/// Does some work to its end on a thread and a runtime of its own. An error is a panic there.
pub(crate) fn apart(work: impl AsyncFnOnce() + Send + 'static) -> std::thread::Result<()> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(work());
    };
    std::thread::spawn(run).join()
}

/// Removes all that there is of a daemon and its pods.
pub(crate) async fn all(place: &Place) {
    of_this_boot(place).await;
    let _ = fs::remove_dir_all(&place.base);
}

/// Removes all that would be gone after a boot of the machine.
pub(crate) async fn of_this_boot(place: &Place) {
    let gone = async || {
        for group in cgroups(place) {
            // What is frozen does not hear that it is killed.
            let _ = fs::write(group.join("freezer.state"), "THAWED");
        }
        let left = processes(place);
        left.iter().for_each(process::Process::kill);
        is_true(left.is_empty())
    };
    eventually_within(PATIENCE, "the end of killed processes", gone).await;
    unmount(&place.base);
    let groups =
        async || is_true(cgroups(place).iter().rev().all(|dir| fs::remove_dir(dir).is_ok()));
    eventually_within(PATIENCE, "empty cgroups", groups).await;
    network(place);
    let _ = fs::remove_dir_all(place.state());
}

/// The processes that belong to the place, but for those that only wait to be buried.
fn processes(place: &Place) -> Vec<process::Process> {
    let mut all = process::all();
    all.retain(|it| !it.zombie && it.belongs_to(place));
    all
}

/// Everything that is mounted at or below a path, the last first.
pub(crate) fn unmount(base: &Path) {
    for mount in mounts().into_iter().rev().filter(|mount| mount.point.starts_with(base)) {
        let _ = rustix::mount::unmount(&mount.point, UnmountFlags::DETACH);
    }
}

/// A line of `/proc/self/mountinfo`.
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    pub(crate) line: String,
}

pub(crate) fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        Some(Mount {
            point: PathBuf::from(unescaped(before.split(' ').nth(4)?)),
            kind: after.split(' ').next()?.to_owned(),
            line: line.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The kernel writes blanks in paths as `\040`.
fn unescaped(text: &str) -> std::ffi::OsString {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if byte == b'\\' => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsStr::from_bytes(&bytes).to_owned()
}

/// The cgroups of the place in every hierarchy, those above others first.
pub(crate) fn cgroups(place: &Place) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for root in mounts().iter().filter(|mount| mount.kind.starts_with("cgroup")) {
        below(&root.point.join(place.cgroup()), &mut all);
    }
    all
}

fn below(dir: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    all.push(dir.to_owned());
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), all);
        }
    }
}

fn network(place: &Place) {
    for bridge in [place.bridge(), place.cni_bridge()] {
        for link in ports(&bridge).into_iter().chain([bridge.clone()]) {
            quietly("ip", &["link", "delete", &link]);
        }
    }
    quietly("nft", &["delete", "table", "inet", &format!("podbay-{}", place.bridge())]);
}

/// The interfaces that are tied to a bridge.
pub(crate) fn ports(bridge: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
    let names = entries.into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// What it removes may not be there.
fn quietly(program: &str, args: &[&str]) {
    let _ = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
