//! How a process that stays gives memory back.

/// From this size on, a buffer is a mapping of its own, which goes back to the system when it is freed. Bytes.
const LARGE: libc::c_int = 256 << 10;
/// How many heaps the threads share.
const HEAPS: libc::c_int = 2;

/// Bounds what glibc keeps of freed memory. To be called before other threads are started.
///
/// By default each thread has a heap of its own, up to eight for each CPU, and each keeps what the largest answer
/// that it ever made took. On a node with 1,000 containers these are 10 MB a thread, so that a page that is left
/// open would let the daemon grow for an hour. With another libc, nothing is changed.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets three numbers of the allocator. It refuses what it does not know.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        // The first also ends that the threshold grows with what was freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (LARGE, HEAPS);
}
