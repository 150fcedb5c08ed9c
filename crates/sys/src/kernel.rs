//! The kernel's version, for tests of what not every kernel has. Code that is no test asks the kernel
//! for the thing itself.

/// Whether the kernel is older than this version; says what is skipped for that.
pub(crate) fn is_older(major: u32, minor: u32, what: &str) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let older = version < (major, minor);
    if older {
        eprintln!("skipped: {what} needs Linux {major}.{minor}, and this is {release}");
    }
    older
}
