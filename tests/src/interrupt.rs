//! The wish of a user that the process ends. Whoever waits asks for it, and fails; so the guards of what was made
//! remove it on the way out, which a signal with its default action would not let them do.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, set_parent_process_death_signal},
};

static IS_WANTED: AtomicBool = AtomicBool::new(false);

extern "C" fn want(_signal: libc::c_int) {
    IS_WANTED.store(true, Ordering::Relaxed);
}

/// From now on, SIGINT, SIGTERM and the end of the parent are this wish.
///
/// # Errors
///
/// When the kernel refuses it.
pub fn catch() -> Result<()> {
    handle(&[libc::SIGINT, libc::SIGTERM], want)?;
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask for a signal at the parent's end")
}

/// Has a function called at these signals. It may do only what `signal-safety(7)` allows.
///
/// # Errors
///
/// When the kernel refuses it.
pub fn handle(signals: &[libc::c_int], handler: extern "C" fn(libc::c_int)) -> Result<()> {
    for &signal in signals {
        // SAFETY: the structure is valid when it is all zero, which is also an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: both pointers are valid or null, and the handler has the type that these flags demand.
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        ensure!(result == 0, "cannot handle signal {signal}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Fails when the process is to end.
///
/// # Errors
///
/// When it is.
pub fn check() -> Result<()> {
    ensure!(!IS_WANTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Waits until something can be read, or it ended.
///
/// # Errors
///
/// When the process is to end.
pub fn readable(from: &impl AsFd) -> Result<()> {
    // The signal may come just before the wait begins.
    let step = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    loop {
        check()?;
        match poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&step)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error).context("cannot wait for input"),
        }
    }
}
