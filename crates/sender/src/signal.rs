//! Blocks signals in the sender's threads, so that the process's main thread handles them.

use std::mem::MaybeUninit;
use std::ptr;

/// Blocks all signals in the calling thread until dropped. Threads spawned meanwhile start with all signals blocked
/// and keep them blocked.
pub(crate) struct Blocked(Option<libc::sigset_t>);

impl Blocked {
    pub(crate) fn all() -> Self {
        let mut every = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `every`, and pthread_sigmask initialises `before` whenever
        // it returns 0, the only case in which it is read. Both touch this thread alone.
        unsafe {
            libc::sigfillset(every.as_mut_ptr());
            let result =
                libc::pthread_sigmask(libc::SIG_SETMASK, every.as_ptr(), before.as_mut_ptr());
            Self((result == 0).then(|| before.assume_init()))
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: `before` is a mask that pthread_sigmask gave out; the old mask is not asked for.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut());
            }
        }
    }
}
