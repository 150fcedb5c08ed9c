//! The system calls of the default filter, by name. It is kept in step with containerd's allow
//! list, so that a pod finds what it is used to; the grouping is ours. Names that a kernel or a
//! libseccomp does not know are skipped by runtimes.

use oci_spec::runtime::Capability::{self, *};

/// Files and directories: their contents, names, attributes, locks, and watching them.
const FILES: &str = "\
    access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup \
    dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir \
    fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr \
    flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 \
    fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 \
    lgetxattr link linkat listmount listxattr listxattrat llistxattr _llseek lremovexattr \
    lseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat \
    open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv removexattr removexattrat rename renameat \
    renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs \
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate \
    truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice \
    write writev";

/// Waiting for descriptors and for asynchronous I/O of the old kind. io_uring is left out: it goes
/// around the filter.
const WAITING: &str = "\
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit _newselect poll ppoll ppoll_time64 pselect6 \
    pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64";

/// Sockets, but for making one, which is filtered by its family. `socketcall`, which 32-bit
/// programs use for all of these, hides its arguments from any filter.
const NETWORK: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom \
    recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown \
    socketcall socketpair";

/// Memory, shared and private.
const MEMORY: &str = "\
    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 \
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
    pkey_free pkey_mprotect remap_file_pages";

/// System V and POSIX IPC, futexes.
const IPC: &str = "\
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list ipc \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop \
    semtimedop semtimedop_time64 set_robust_list shmat shmctl shmdt shmget";

/// Clocks and timers. Setting a clock needs a capability besides.
const TIME: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer \
    gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun \
    timer_gettime timer_gettime64 timer_settime timer_settime64 times";

/// Signals.
const SIGNALS: &str = "\
    kill pause pidfd_open pidfd_send_signal restart_syscall rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill \
    tkill";

/// Processes: their making, identity, scheduling, limits and end, and looking into one's own.
const PROCESSES: &str = "\
    capget capset execve execveat exit exit_group fork get_thread_area getcpu getegid \
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp \
    getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self prctl prlimit64 \
    process_mrelease process_vm_readv process_vm_writev ptrace rseq sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp \
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid \
    setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 \
    sysinfo ugetrlimit uname uretprobe vfork wait4 waitid waitpid";

/// All groups that every container may use.
pub(super) const ALWAYS: [&str; 8] =
    [FILES, WAITING, NETWORK, MEMORY, IPC, TIME, SIGNALS, PROCESSES];

/// More that comes with a capability.
pub(super) const WITH_CAPABILITY: [(Capability, &str); 14] = [
    (Bpf, "bpf"),
    (DacReadSearch, "open_by_handle_at"),
    (Perfmon, "perf_event_open"),
    (
        SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    (SysBoot, "reboot"),
    (SysChroot, "chroot"),
    (SysModule, "delete_module finit_module init_module"),
    (SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (SysPacct, "acct"),
    (SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (SysRawio, "ioperm iopl"),
    (SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (SysTtyConfig, "vhangup"),
    (Syslog, "syslog"),
];

/// More that comes with an architecture.
pub(super) const X86: &str = "arch_prctl modify_ldt";
pub(super) const ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";
pub(super) const RISCV: &str = "riscv_flush_icache riscv_hwprobe";
