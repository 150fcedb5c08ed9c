//! The kernel's table of mounts, in which containers that may mount on the host, and whoever else
//! does, have chosen the paths. Each is read back as it was, and none hides where the cgroups are.
//! The input is a path, a NUL, and a table.
#![no_main]

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use libfuzzer_sys::fuzz_target;
use sys::{below::mount_points, cgroup::Layout};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (path, table) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    mount_points(table);
    Layout::parse(table);
    let ours = b"1 2 0:3 / /ours rw - cgroup2 cgroup2 rw\n";
    let written = write(path);
    let line = [b"4 2 0:5 / /", &*written, b" rw - tmpfs ", &written, b" rw\n"].concat();
    let table = [&line[..], ours].concat();
    let points = mount_points(&table);
    assert_eq!(points[0].as_os_str().as_bytes(), [b"/", path].concat());
    assert_eq!(points[1..], [PathBuf::from("/ours")]);
    assert_eq!(Layout::parse(&table), Some(Layout::V2 { root: PathBuf::from("/ours") }));
});

/// As the kernel writes a path, or a source (`mangle` in fs/proc_namespace.c).
fn write(text: &[u8]) -> Vec<u8> {
    let escaped = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![*byte],
    };
    text.iter().flat_map(escaped).collect()
}
