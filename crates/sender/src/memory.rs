//! Gives memory back to the system after a burst.

/// Returns what the allocator keeps for threads that have ended. Takes about a millisecond, so it
/// is for when nothing is under way.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim() {
    // SAFETY: malloc_trim may be called at any time from any thread; it releases free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators have no such call, or do it themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() {}
