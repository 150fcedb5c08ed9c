//! Whether KVM is any good here. That `/dev/kvm` is there does not say so: some hosts open it and then
//! interpret what the guest does, instruction by instruction, slower than QEMU translates it.
//!
//! So a loop is run under it, of forty million instructions, from the reset vector: a processor takes
//! some ten milliseconds for it, and an interpreter ten seconds. (A processor of before 2010 cannot run a guest's
//! real mode, and is taken for an interpreter. `PODBAY_VM_ACCEL` overrules.)

use std::{
    env, fs,
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use super::place::Place;
use crate::{children, files};

/// QEMU's own start is the most of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A ROM that ends at the reset vector.
const ROM: usize = 0x1_0000;
const RESET: usize = 0xfff0;
const LOOP: usize = 0xff00;

/// `mov ecx, 20000000; 1: dec ecx; jnz 1b; mov al, 0; out 0xf4, al; hlt`
const CODE: [u8; 16] = [
    0x66, 0xb9, 0x00, 0x2d, 0x31, 0x01, 0x66, 0x49, 0x75, 0xfc, 0xb0, 0x00, 0xe6, 0xf4, 0xf4, 0xf4,
];
/// `jmp LOOP`, from the reset vector.
const JUMP: [u8; 3] = [0xe9, 0x0d, 0xff];

/// What a guest does by writing 0 to the port of `isa-debug-exit`.
const DONE: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// By `PODBAY_VM_ACCEL`, else by trying.
    pub(super) fn choose(place: &Place) -> Result<Self, String> {
        match env::var("PODBAY_VM_ACCEL").as_deref() {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            Ok("") | Err(_) => {}
            Ok(other) => return Err(format!("PODBAY_VM_ACCEL is {other:?}, and not kvm or tcg")),
        }
        if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        // It does not change before the host is started again.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = place.vm.join("kvm-is-fast");
        let answer = fs::read_to_string(&known).unwrap_or_default();
        let is_fast = match answer.strip_prefix(boot.trim()) {
            Some(" yes") => true,
            Some(" no") => false,
            _ => {
                let is_fast = try_kvm(place)?;
                let answer = if is_fast { "yes" } else { "no" };
                files::write(&known, format!("{} {answer}", boot.trim()))?;
                is_fast
            }
        };
        Ok(if is_fast { Self::Kvm } else { Self::Tcg })
    }

    pub(super) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "QEMU's translator, since there is no fast KVM",
        }
    }
}

fn try_kvm(place: &Place) -> Result<bool, String> {
    let path = place.own("probe.rom");
    files::write(&path, rom())?;
    let mut qemu = children::alone("KILL", "qemu-system-x86_64");
    qemu.args(["-M", "q35", "-accel", "kvm", "-m", "16", "-nodefaults", "-no-user-config"]);
    qemu.args(["-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-bios"]);
    qemu.arg(&path);
    ends_in_time(qemu)
}

fn rom() -> Vec<u8> {
    let mut rom = vec![0xf4; ROM];
    rom[LOOP..LOOP + CODE.len()].copy_from_slice(&CODE);
    rom[RESET..RESET + JUMP.len()].copy_from_slice(&JUMP);
    rom
}

/// Its standard output, on which it prints nothing, tells when it ends.
fn ends_in_time(mut qemu: Command) -> Result<bool, String> {
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = qemu.spawn().map_err(|error| format!("qemu cannot be run: {error}"))?;
    let (tell, ended) = channel();
    let output = child.stdout.take();
    thread::spawn(move || {
        let _ = output.map(|mut output| std::io::copy(&mut output, &mut std::io::sink()));
        let _ = tell.send(());
    });
    let in_time = ended.recv_timeout(PATIENCE).is_ok();
    let _ = child.kill();
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(in_time && status.code() == Some(DONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_vector_leads_to_the_loop() {
        let rom = rom();
        let jump = i16::from_le_bytes([rom[RESET + 1], rom[RESET + 2]]);
        let next = i32::try_from(RESET + JUMP.len()).unwrap();
        assert_eq!(next + i32::from(jump), i32::try_from(LOOP).unwrap());
    }
}
