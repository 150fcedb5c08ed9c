//! Filters of system calls: the default one, those that come as files, and none.

mod default;
mod parse;
mod table;

use oci_spec::runtime::{
    Capabilities, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

use crate::plan::{Node, Seccomp};

pub use parse::{BadProfile, parse_seccomp};

/// The privileged are never filtered.
pub(crate) fn of(
    asked: &Seccomp,
    privileged: bool,
    bounding: &Capabilities,
    node: &Node,
) -> Option<LinuxSeccomp> {
    match asked {
        _ if privileged => None,
        Seccomp::Unconfined => None,
        Seccomp::RuntimeDefault => Some(default::profile(bounding, node.architecture)),
        Seccomp::Profile(profile) => Some((**profile).clone()),
    }
}

/// Turns round the operands of masked comparisons, for libcontainer 0.7: where OCI and runc have
/// the mask in `value` and what is left of it in `valueTwo`, it takes them the other way, and so
/// lets everything pass.
pub(crate) fn for_libcontainer(seccomp: &LinuxSeccomp) -> LinuxSeccomp {
    let mut turned = seccomp.clone();
    let syscalls = seccomp.syscalls().clone();
    turned.set_syscalls(syscalls.map(|all| all.into_iter().map(turn_round).collect()));
    turned
}

fn turn_round(mut syscall: LinuxSyscall) -> LinuxSyscall {
    let turn = |arg: LinuxSeccompArg| match arg.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => LinuxSeccompArgBuilder::default()
            .index(arg.index())
            .op(arg.op())
            .value(arg.value_two().unwrap_or(0))
            .value_two(arg.value())
            .build()
            .expect("every field has a default"),
        _ => arg,
    };
    let args = syscall.args().clone().map(|args| args.into_iter().map(turn).collect());
    syscall.set_args(args);
    syscall
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;

    use crate::tests::plan;

    fn masked(spec: &Spec) -> Vec<(u64, Option<u64>)> {
        let linux = spec.linux().as_ref().unwrap();
        let syscalls = linux.seccomp().as_ref().unwrap().syscalls().clone().unwrap();
        let args = syscalls.iter().flat_map(|call| call.args().clone().unwrap_or_default());
        args.filter(|arg| arg.op() == LinuxSeccompOperator::ScmpCmpMaskedEq)
            .map(|arg| (arg.value(), arg.value_two()))
            .collect()
    }

    #[test]
    fn masked_comparisons_are_turned_round_for_libcontainer_only() {
        let mut plan = plan();
        plan.security.seccomp = Seccomp::RuntimeDefault;
        let mut spec = crate::config(&plan).unwrap().spec;
        assert_eq!(masked(&spec), [(0x7e02_0000, Some(0))]);
        crate::for_libcontainer(&mut spec);
        assert_eq!(masked(&spec), [(0, Some(0x7e02_0000))]);
    }
}
