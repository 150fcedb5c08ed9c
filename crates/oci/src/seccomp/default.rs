//! The filter that a container has that asks for the runtime's default.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use super::table::{ALWAYS, ARM, RISCV, WITH_CAPABILITY, X86};
use crate::plan::Architecture;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Linux, and its variants with UNAME26 and without randomised addresses, and the question which
/// one it is. Others switch protections off.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// All is refused with EPERM that is not allowed here. More is allowed to whom more is allowed.
pub(super) fn profile(bounding: &Capabilities, architecture: Architecture) -> LinuxSeccomp {
    use LinuxSeccompOperator::{ScmpCmpEq as Is, ScmpCmpGt as Above, ScmpCmpLt as Below};
    let mut rules: Vec<LinuxSyscall> = ALWAYS.iter().map(|names| allow(names, None)).collect();
    // Two families are left out: the kernel's ciphers (CVE-2026-31431), and sockets to the
    // hypervisor, which no network namespace contains. One rule cannot exclude both.
    for (op, family) in [(Below, AF_ALG), (Is, AF_ALG + 1), (Above, AF_VSOCK)] {
        rules.push(allow("socket", Some(arg(op, family, None))));
    }
    rules.extend(PERSONALITIES.map(|one| allow("personality", Some(arg(Is, one, None)))));
    let (architectures, more) = dialects(architecture);
    rules.extend(more.map(|names| allow(names, None)));
    rules.extend(by_capability(bounding));
    if !bounding.contains(&Capability::SysAdmin) {
        rules.extend(no_new_namespaces());
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures).filter(|all| !all.is_empty()))
        .set_syscalls(Some(rules));
    profile
}

/// Some calls come with more than one capability, and are named once.
fn by_capability(bounding: &Capabilities) -> Option<LinuxSyscall> {
    let have = |(capability, _): &&(Capability, &str)| bounding.contains(capability);
    let names = WITH_CAPABILITY.iter().filter(have).flat_map(|(_, names)| names.split(' '));
    let names: BTreeSet<&str> = names.collect();
    let all = names.into_iter().collect::<Vec<_>>().join(" ");
    Some(allow(&all, None)).filter(|rule| !rule.names().is_empty())
}

/// Threads and processes may be made, namespaces not. The flags of clone3 are out of a filter's
/// sight; told that the kernel does not know it, a C library goes back to clone.
fn no_new_namespaces() -> [LinuxSyscall; 2] {
    let without = arg(LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0));
    let mut unknown = allow("clone3", None);
    unknown.set_action(LinuxSeccompAction::ScmpActErrno).set_errno_ret(Some(ENOSYS));
    [allow("clone", Some(without)), unknown]
}

/// The architectures whose programs the kernel runs, and what only they call.
fn dialects(architecture: Architecture) -> (Vec<Arch>, Option<&'static str>) {
    use Arch::{
        ScmpArchAarch64, ScmpArchArm, ScmpArchRiscv64, ScmpArchX32, ScmpArchX86, ScmpArchX86_64,
    };
    match architecture {
        Architecture::X86_64 => (vec![ScmpArchX86_64, ScmpArchX86, ScmpArchX32], Some(X86)),
        Architecture::Aarch64 => (vec![ScmpArchAarch64, ScmpArchArm], Some(ARM)),
        Architecture::Riscv64 => (vec![ScmpArchRiscv64], Some(RISCV)),
        Architecture::Other => (Vec::new(), None),
    }
}

fn allow(names: &str, condition: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_args(condition.map(|one| vec![one]));
    rule
}

/// A condition on the first argument.
fn arg(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value);
    let arg = match value_two {
        Some(two) => arg.value_two(two),
        None => arg,
    };
    arg.build().expect("every field has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(capabilities: &[Capability]) -> Vec<LinuxSyscall> {
        let bounding = capabilities.iter().copied().collect();
        profile(&bounding, Architecture::X86_64).syscalls().clone().unwrap()
    }

    fn allows(capabilities: &[Capability], name: &str) -> bool {
        rules(capabilities).iter().any(|rule| {
            rule.action() == LinuxSeccompAction::ScmpActAllow
                && rule.args().is_none()
                && rule.names().iter().any(|known| known == name)
        })
    }

    #[test]
    fn what_reaches_deep_into_the_kernel_is_not_allowed() {
        let never = [
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "keyctl",
            "add_key",
            "request_key",
            "userfaultfd",
            "kexec_load",
            "socket",
            "personality",
        ];
        let without = ["bpf", "unshare", "mount", "setns", "clone", "clone3", "open_by_handle_at"];
        for name in never.into_iter().chain(without) {
            assert!(!allows(&[], name), "{name}");
        }
        for name in never {
            assert!(!allows(&[Capability::SysAdmin, Capability::SysPtrace], name), "{name}");
        }
        for name in ["read", "execve", "futex", "ptrace", "arch_prctl"] {
            assert!(allows(&[], name), "{name}");
        }
    }

    #[test]
    fn a_capability_brings_its_system_calls() {
        for (capability, name) in [
            (Capability::SysAdmin, "unshare"),
            (Capability::SysAdmin, "clone"),
            (Capability::SysAdmin, "sethostname"),
            (Capability::Bpf, "bpf"),
            (Capability::SysChroot, "chroot"),
            (Capability::SysNice, "mbind"),
        ] {
            assert!(allows(&[capability], name) && !allows(&[], name), "{name}");
        }
    }

    #[test]
    fn no_name_is_allowed_twice_without_a_condition() {
        let mut all: Vec<String> = ALWAYS
            .iter()
            .flat_map(|names| names.split_ascii_whitespace().map(str::to_owned))
            .collect();
        let count = all.len();
        assert!(count > 350, "{count}");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|n| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')));
    }

    #[test]
    fn sockets_are_of_any_family_but_two() {
        let allows = |family: u64| {
            rules(&[]).iter().filter(|rule| rule.names() == &["socket"]).any(|rule| {
                let [arg] = rule.args().as_ref().unwrap()[..] else { panic!("one condition") };
                match arg.op() {
                    LinuxSeccompOperator::ScmpCmpLt => family < arg.value(),
                    LinuxSeccompOperator::ScmpCmpEq => family == arg.value(),
                    LinuxSeccompOperator::ScmpCmpGt => family > arg.value(),
                    other => panic!("{other}"),
                }
            })
        };
        let refused: Vec<u64> = (0..64).filter(|family| !allows(*family)).collect();
        assert_eq!(refused, [AF_ALG, AF_VSOCK]);
    }
}
