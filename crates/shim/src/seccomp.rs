//! A config's filter of system calls, loaded by libseccomp. What cannot be applied is an error, for a
//! filter with holes is worse than none.

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
    error::SeccompError,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

/// A filter that is ready to be loaded.
pub struct Filter(ScmpFilterContext);

impl Filter {
    /// # Errors
    /// In words, with what could not be applied.
    pub fn build(filter: &LinuxSeccomp) -> Result<Self, String> {
        let default = action(filter.default_action(), filter.default_errno_ret())?;
        let mut context = ScmpFilterContext::new(default).map_err(|e| e.to_string())?;
        set_up(&mut context, filter).map_err(|e| e.to_string())?;
        for rule in filter.syscalls().iter().flatten() {
            add(&mut context, rule, default)
                .map_err(|why| format!("the rule for {}: {why}", rule.names().join(", ")))?;
        }
        Ok(Self(context))
    }

    /// Binds this thread to it, and what it executes. It needs `CAP_SYS_ADMIN`, or that no new
    /// privileges can be had.
    pub fn load(&self) -> Result<(), String> {
        self.0.load().map_err(|e| format!("the kernel does not take it: {e}"))
    }
}

fn set_up(context: &mut ScmpFilterContext, filter: &LinuxSeccomp) -> Result<(), SeccompError> {
    for arch in filter.architectures().iter().flatten() {
        context.add_arch(architecture(*arch))?;
    }
    for flag in filter.flags().iter().flatten() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => context.set_ctl_log(true)?,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => context.set_ctl_tsync(true)?,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => context.set_ctl_ssb(true)?,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                context.set_ctl_waitkill(true)?
            }
        };
    }
    // Whether new privileges can be had is for the config to say, and is set elsewhere.
    context.set_ctl_nnp(false)?;
    Ok(())
}

fn add(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
) -> Result<(), String> {
    let action = action(rule.action(), rule.errno_ret())?;
    // libseccomp refuses such a rule, which changes nothing.
    if action == default {
        return Ok(());
    }
    let conditions: Vec<_> =
        rule.args().iter().flatten().map(condition).collect::<Result<_, _>>()?;
    for name in rule.names() {
        // A name that this libseccomp does not know is of a system call that it cannot filter; the
        // default action is what that gets, as with every runtime.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        let added = match &conditions[..] {
            [] => context.add_rule(action, call),
            conditions => context.add_rule_conditional(action, call, conditions),
        };
        added.map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, String> {
    let errno = errno.unwrap_or(libc::EPERM.cast_unsigned());
    let value = |_| format!("{errno} is no error number");
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            ScmpAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno.try_into().map_err(value)?),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno.try_into().map_err(value)?),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => {
            return Err("nobody is here to be notified (SCMP_ACT_NOTIFY)".to_owned());
        }
    })
}

fn condition(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare, String> {
    let index = u32::try_from(arg.index()).map_err(|_| "no such argument".to_owned())?;
    let (value, second) = (arg.value(), arg.value_two().unwrap_or_default());
    let (compare, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        // The first value is the mask, as runc has it.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), second),
    };
    Ok(ScmpArgCompare::new(index, compare, value))
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> LinuxSeccomp {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_filter_of_everything_that_a_config_may_have_is_built() {
        let filter = filter(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
                "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls":[
                  {"names":["read","write","not_a_system_call"],"action":"SCMP_ACT_ALLOW"},
                  {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
                  {"names":["open"],"action":"SCMP_ACT_ERRNO","errnoRet":1},
                  {"names":["clone"],"action":"SCMP_ACT_ALLOW",
                   "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        );
        Filter::build(&filter).unwrap();
    }

    #[test]
    fn what_cannot_be_applied_is_refused_and_named() {
        let notify = filter(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        );
        let why = Filter::build(&notify).map(drop).unwrap_err();
        assert!(why.contains("mount") && why.contains("NOTIFY"), "{why}");
        let index = filter(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_KILL",
                "args":[{"index":9,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        );
        assert!(Filter::build(&index).map(drop).unwrap_err().contains("mount"));
    }
}
