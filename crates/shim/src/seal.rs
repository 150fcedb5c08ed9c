//! Keeping containers from writing to our own program. A container may run `/proc/self/exe`, and
//! that is us until it is another (CVE-2019-5736). So we run from a mount that is read-only and
//! that nobody else has: whatever descriptor a container gets of our program, it cannot be opened
//! for writing.

use std::{
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::ffi::OsStrExt as _,
    },
    ptr,
};

use rustix::fs::StatVfsMountFlags;
use sys::mount::{Attributes, Detached, bind, handle};

use crate::error::Error;

const SELF: &str = "/proc/self/exe";

/// Returns when our program cannot be written to through us: at once, if it is on a read-only
/// mount already; else by executing it again from one.
pub fn seal() -> Result<(), Error> {
    let sealed = rustix::fs::statvfs(SELF)
        .map_err(Error::kernel("looking at our own program"))?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY);
    if sealed {
        return Ok(());
    }
    let program = read_only().map_err(Error::kernel("mounting our own program read-only"))?;
    Err(Error::kernel("executing our own program again")(execute(&program)))
}

/// Our program, on a mount of its own.
fn read_only() -> io::Result<Detached> {
    let program = bind(handle(SELF.as_ref())?, false)?;
    program.set(Attributes { read_only: true, ..Attributes::default() }, false)?;
    Ok(program)
}

/// Returns only if it fails. Arguments, environment and descriptors stay as they are.
fn execute(program: &Detached) -> io::Error {
    let text = |text: OsString| CString::new(text.as_bytes()).unwrap_or_default();
    let arguments: Vec<CString> = std::env::args_os().map(text).collect();
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        text(name)
    });
    let variables: Vec<CString> = variables.collect();
    let list = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (list(&arguments), list(&variables));
    // SAFETY: all pointers are to NUL-terminated strings and null-terminated lists of them, which
    // live until the call returns.
    unsafe {
        libc::execveat(
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr().cast(),
            envp.as_ptr().cast(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
