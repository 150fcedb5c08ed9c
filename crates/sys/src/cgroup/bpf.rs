//! Two commands of `bpf(2)`: to load a program on devices, and to bind it to a cgroup, with which it goes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::device_program::Instruction;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
const AT_CGROUP_DEVICE: u32 = 6;
/// Others may have bound one too, and then all have to allow.
const ALLOW_MULTI: u32 = 2;

/// `union bpf_attr`, as each of the two has it. The kernel takes what is left out for zeroes.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has the kernel ask `program` about each device that a process of the cgroup, or of one below it, opens.
pub(super) fn ask_about_devices(cgroup: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr().addr() as u64,
        licence: c"Apache-2.0".as_ptr().addr() as u64,
    };
    let loaded = bpf(PROG_LOAD, &load)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = Attach {
        target: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        kind: AT_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel only reads the structure, which is as long as is said, and what it points to,
    // which outlives this call: both callers hold it.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    match libc::c_int::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}
