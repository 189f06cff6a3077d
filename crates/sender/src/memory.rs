//! Returns memory to the system after a burst.

/// Returns the memory that the allocator keeps for threads that have ended. It takes about a millisecond, so it is
/// called when there are no requests.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: malloc_trim may be called at any time from any thread; it releases free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators have no such call, or return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
