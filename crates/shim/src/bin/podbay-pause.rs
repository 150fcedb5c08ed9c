//! The pause container's program: it holds the pod's namespaces by being there, and reaps what is
//! orphaned in a shared pid namespace, whose init it is. It ends on SIGTERM and SIGINT.
//!
//! With one argument it holds a pod's scope: in a session of its own, and only once it was told to by a
//! byte on its standard input. One that nobody will tell any more, since who started it is gone, ends.
//!
//! It is a few hundred bytes of code, and uses neither the standard library nor a C library,
//! though the former is named among its dependencies: without it, a build with unwinding would not
//! do. Nothing here may call a function: `pause.ld` leaves out all but the sections named here.

#![no_main]

use core::arch::{asm, global_asm};

/// What to do on a signal, as the kernel has it (`struct sigaction` of `asm/signal.h`).
#[repr(C)]
#[allow(dead_code, reason = "the kernel reads it")]
struct Action {
    handler: usize,
    flags: usize,
    #[cfg(target_arch = "x86_64")]
    restorer: usize,
    mask: u64,
}

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
/// Reap children that end, and tell us nothing of them.
const SA_NOCLDWAIT: usize = 2;
const SA_NOCLDSTOP: usize = 1;
const SIG_DFL: usize = 0;
const SIG_BLOCK: usize = 0;
const STDIN: usize = 0;
/// How large a set of signals is, in bytes.
const SET: usize = 8;
/// The signals that end us.
#[unsafe(link_section = ".pause.set")]
static OURS: u64 = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1);

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const SETSID: usize = 112;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const EXIT_GROUP: usize = 94;
    pub const SETSID: usize = 157;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".section .pause.start, \"ax\"", ".globl _start", "_start:", "xor ebp, ebp", "mov rdi, [rsp]", "and rsp, -16", "call {begin}", "ud2",
    begin = sym begin);

#[cfg(target_arch = "aarch64")]
global_asm!(".section .pause.start, \"ax\"", ".globl _start", "_start:", "mov x29, 0", "mov x30, 0", "ldr x0, [sp]", "bl {begin}", "brk 1",
    begin = sym begin);

/// A system call: its result, or the negative of its error. Unsafe: what the arguments point to
/// must be what the kernel expects there.
#[cfg(target_arch = "x86_64")]
macro_rules! call {
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr) => {{
        let result: isize;
        asm!("syscall", inlateout("rax") $number => result, in("rdi") $a, in("rsi") $b,
            in("rdx") $c, in("r10") $d, lateout("rcx") _, lateout("r11") _, options(nostack));
        result
    }};
}

#[cfg(target_arch = "aarch64")]
macro_rules! call {
    ($number:expr, $a:expr, $b:expr, $c:expr, $d:expr) => {{
        let result: isize;
        asm!("svc 0", in("x8") $number, inlateout("x0") $a => result, in("x1") $b, in("x2") $c,
            in("x3") $d, options(nostack));
        result
    }};
}

/// As init of a pid namespace we get no signal whose action is the default: it is waited for. Our
/// name is one of the arguments.
#[unsafe(link_section = ".pause.begin")]
extern "C" fn begin(arguments: usize) -> ! {
    let mut told = 0_u8;
    let byte = &raw mut told;
    if arguments == 2 {
        // SAFETY: what is read is as long as is said, and is ours. The last call does not return.
        unsafe {
            call!(number::SETSID, 0_usize, 0_usize, 0_usize, 0_usize);
            if call!(number::READ, STDIN, byte, 1_usize, 0_usize) != 1 {
                call!(number::EXIT_GROUP, 0_usize, 0_usize, 0_usize, 0_usize);
            }
        }
    }
    let action = Action {
        handler: SIG_DFL,
        flags: SA_NOCLDWAIT | SA_NOCLDSTOP,
        #[cfg(target_arch = "x86_64")]
        restorer: 0,
        mask: 0,
    };
    let (action, set) = (&raw const action, &raw const OURS);
    // SAFETY: the kernel reads the action and the set, which live for ever, in the sizes that are
    // said, and writes nothing.
    unsafe {
        call!(number::RT_SIGACTION, SIGCHLD, action, 0_usize, SET);
        call!(number::RT_SIGPROCMASK, SIG_BLOCK, set, 0_usize, SET);
    }
    loop {
        // SAFETY: the set is read only, nothing is asked back, and there is no limit of time. The
        // second call does not return.
        unsafe {
            if call!(number::RT_SIGTIMEDWAIT, set, 0_usize, 0_usize, SET) > 0 {
                call!(number::EXIT_GROUP, 0_usize, 0_usize, 0_usize, 0_usize);
            }
        }
    }
}
