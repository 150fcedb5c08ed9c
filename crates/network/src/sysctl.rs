//! Switches of the network stack that have no netlink message: files below `/proc/sys/net`, which
//! shows each thread those of the namespace that the thread is in.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use crate::error::{At, Error};

const ROOT: &str = "/proc/sys/net";

/// Sets a switch that the kernel may lack, as it does all of IPv6's when that is disabled.
pub fn set_if_there(name: &str, value: &str) -> Result<(), Error> {
    let file = Path::new(ROOT).join(name);
    match write(&file, value) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        written => written.at("writing", &file),
    }
}

/// Sets a switch, unless it is set so: then a read-only `/proc/sys` does not matter.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let file = Path::new(ROOT).join(name);
    if read(&file).is_ok_and(|now| now == value) {
        return Ok(());
    }
    write(&file, value).at("writing", &file)
}

/// Has the host forward IPv6. A host that forwards takes its own default route from no router any
/// more, unless `accept_ra` is 2; so that is set where it is 1, or the host would lose its network.
pub fn forward_ipv6() -> Result<(), Error> {
    let all = Path::new(ROOT).join("ipv6/conf/all/forwarding");
    if read(&all).is_ok_and(|now| now == "1") {
        return Ok(());
    }
    let interfaces = Path::new(ROOT).join("ipv6/conf");
    for interface in fs::read_dir(&interfaces).at("listing", &interfaces)? {
        let file = interface.at("listing", &interfaces)?.path().join("accept_ra");
        if read(&file).is_ok_and(|now| now == "1") {
            write(&file, "2").at("writing", &file)?;
        }
    }
    write(&all, "1").at("writing", &all)
}

fn read(file: &PathBuf) -> io::Result<String> {
    fs::read_to_string(file).map(|text| text.trim().to_owned())
}

/// Never makes a file: one that is not there is a switch that the kernel does not have.
fn write(file: &Path, value: &str) -> io::Result<()> {
    use io::Write;
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}
