//! The memory allocator's settings. With another one than glibc's nothing is done.

/// How many arenas there are at most. glibc makes up to eight for each processor, one for each thread
/// that comes upon another, and memory that is free in one is not used by the others: a daemon with
/// many short-lived threads keeps megabytes of it. Two of them are as fast for such a one.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Has few arenas made. Before there are threads.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
