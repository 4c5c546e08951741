//! What a process inherits from its parent and must not depend on: blocked and ignored signals.

use std::{mem::MaybeUninit, ptr};

/// Brings signals into the state that the rest of the program expects, whatever the parent had set. To be
/// called before any thread is started.
///
/// - No signal is blocked: otherwise SIGTERM would never arrive.
/// - SIGCHLD is not ignored: otherwise the end of an identity command could not be waited for.
/// - SIGXFSZ is ignored: a file beyond the limit of the process is then a failed write, and no end of counting.
pub fn set_up_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; the other calls change the disposition of this process, which
    // has no other thread yet.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
