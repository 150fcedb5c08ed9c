//! Sysctls: where they live, and writing them. The kernel shows each thread those of the namespaces
//! that thread is in; which a thread may write is not decided here.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::pin::naming;

/// The file of a sysctl. As in `sysctl(8)`, whichever of `.` and `/` comes first separates, and the
/// other is then a plain letter of a name (`net/ipv4/conf/eth0.1/forwarding`); with dots as
/// separators, a slash stands for a dot in a name.
///
/// # Errors
/// `InvalidInput` for what is no name.
pub(crate) fn file(name: &str) -> io::Result<PathBuf> {
    let dotted = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let swapped: String = if dotted { name.chars().map(swap).collect() } else { name.to_owned() };
    let below = Path::new(&swapped);
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || swapped.is_empty() || swapped.contains('\0') {
        let what = format!("{name:?} is not the name of a sysctl");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(Path::new("/proc/sys").join(below))
}

/// Sets sysctls in the namespaces of this thread, as far as it may.
///
/// # Errors
/// `InvalidInput` for what is no name, before anything is set; else of the kernel, with the file.
pub fn set<'a>(sysctls: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    let named = sysctls.into_iter().map(|(name, value)| Ok((file(name)?, value)));
    write(&named.collect::<io::Result<Vec<_>>>()?)
}

/// Writes files that [`file`] gave, in the namespaces of this thread.
pub(crate) fn write(sysctls: &[(PathBuf, &str)]) -> io::Result<()> {
    sysctls.iter().try_for_each(|(file, value)| {
        fs::write(file, value).map_err(|e| naming(&format!("writing {}", file.display()), e))
    })
}
