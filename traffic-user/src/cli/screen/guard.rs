//! The state of the terminal: taken when the screen begins, and given back however it ends.

use std::{
    io::{self, Write as _, stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use ratatui::crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use rustix::process::{Signal, getpid, kill_process};

use crate::cli::Done;

/// Whether the terminal is ours now.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to draw. The terminal is given back when it is dropped, and before the message of a panic.
pub(super) struct Guard(());

impl Guard {
    pub fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let printed = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                printed(panic);
            }));
        });
        let guard = Self(());
        take()?;
        Ok(guard)
    }

    /// Stops this process as its shell expects, until the shell continues it.
    pub fn suspend(&self) -> anyhow::Result<()> {
        give_back();
        stop().context("cannot stop")?;
        take().context("cannot set up the terminal")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// Nothing is left to do where the terminal is gone.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _gone = execute!(stdout(), Show, LeaveAlternateScreen);
        let _gone = stdout().flush();
        let _gone = disable_raw_mode();
    }
}

/// Stops by the default action of SIGTSTP. The kernel does not stop a process whose shell is gone, as SIGSTOP
/// would for ever.
fn stop() -> io::Result<()> {
    with_default_action(libc::SIGTSTP, || kill_process(getpid(), Signal::TSTP).map_err(io::Error::from))
}

/// Ends by a signal, so that whoever waits for this process sees why.
pub(super) fn end_by(signal: Signal) -> anyhow::Result<Done> {
    with_default_action(signal.as_raw(), || kill_process(getpid(), signal).map_err(io::Error::from))
        .context("cannot end")?;
    Ok(Done::Success)
}

/// Calls `act` while a signal has its default action.
fn with_default_action(signal: i32, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: an action of zeros is SIG_DFL with an empty mask, and both are valid for these calls.
    let mut handler: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both point to actions that live for the whole call.
    if unsafe { libc::sigaction(signal, &raw const default, &raw mut handler) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let acted = act();
    // SAFETY: the handler is the one that was there.
    if unsafe { libc::sigaction(signal, &raw const handler, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    acted
}
