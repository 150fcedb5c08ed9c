//! Memory that is not needed goes back to the kernel: there is a shim for each pod, and most of
//! the time most of them have nothing to do. With another allocator than glibc's nothing is done.

/// What is not kept when it is free, in bytes: buffers of output, above all.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 32 * 1024;

/// Has what is large mapped by itself, and unmapped when it is free. Once, at the start.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets numbers of the allocator, and there is no other thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Gives back the pages that are free, wherever they are. It takes tens of microseconds: for after
/// work that is rare.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
