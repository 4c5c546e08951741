//! The state of the terminal: taken when the screen begins, and given back however it ends.
//!
//! Nothing here waits without an end. The terminal of a connection that hangs takes no output, and neither a signal
//! nor a panic may depend on it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _, stdout},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    panic,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ratatui::crossterm::{
    Command, cursor,
    style::ResetColor,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Signal, getpgrp, getpid, kill_process},
    termios::{Action, QueueSelector, tcflow, tcflush, tcgetpgrp},
    time::Timespec,
};

use crate::cli::Done;

/// The output while the terminal is ours. Whoever has the lock waits for nothing but the last words to the terminal.
static TAKEN: Mutex<Option<File>> = Mutex::new(None);

/// How long a terminal may take nothing before what it has not shown yet is thrown away. Twice this is the
/// longest that an end takes.
const PATIENCE: Duration = Duration::from_millis(400);

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

    /// Another handle on the output, to wait until it takes more.
    pub fn output(&self) -> io::Result<File> {
        taken().as_ref().ok_or_else(given_back)?.try_clone()
    }

    /// Writes as much as the terminal takes now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing now, and when the terminal is gone or was given back.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        taken().as_mut().ok_or_else(given_back)?.write(bytes)
    }

    /// Stops this process as its shell expects, until the shell continues it.
    pub fn suspend(&self) -> anyhow::Result<()> {
        give_back();
        stop().context("cannot stop")
    }

    /// Sets up the terminal again, after somebody else had it.
    pub fn take_again(&self) -> io::Result<()> {
        take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

fn taken() -> MutexGuard<'static, Option<File>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn given_back() -> io::Error {
    io::Error::other("it was given back when a thread failed")
}

fn take() -> io::Result<()> {
    let mut taken = taken();
    // If a shell had the terminal, it is no longer as it was left.
    disable_raw_mode()?;
    enable_raw_mode()?;
    let output = taken.insert(own_output()?);
    let mut sequences = String::new();
    add(&mut sequences, EnterAlternateScreen);
    add(&mut sequences, cursor::Hide);
    // A terminal without an alternate screen still shows what was there.
    add(&mut sequences, Clear(ClearType::All));
    write_in_time(output, sequences.as_bytes())
}

/// Standard output as a description of our own, which does not block. The one that was inherited is the shell's
/// too, and must stay as it is. It remains where the terminal belongs to another user and cannot be opened.
fn own_output() -> io::Result<File> {
    const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;
    match OpenOptions::new().write(true).custom_flags(FLAGS).open("/proc/self/fd/1") {
        Ok(output) => Ok(output),
        Err(_) => Ok(stdout().as_fd().try_clone_to_owned()?.into()),
    }
}

/// Nothing is left to do where the terminal is gone, or where it is the shell's, which has set it up for itself.
fn give_back() {
    let mut taken = taken();
    let Some(output) = taken.take() else { return };
    if is_in_background() {
        return;
    }
    let mut sequences = String::new();
    add(&mut sequences, ResetColor);
    // Without an alternate screen, the prompt comes below the last frame.
    add(&mut sequences, cursor::MoveTo(0, 9998));
    add(&mut sequences, Clear(ClearType::CurrentLine));
    add(&mut sequences, LeaveAlternateScreen);
    add(&mut sequences, cursor::Show);
    if write_in_time(&output, sequences.as_bytes()).is_err() {
        let _gone = tcflow(&output, Action::OOn);
        let _gone = tcflush(&output, QueueSelector::OFlush);
        let _gone = write_in_time(&output, sequences.as_bytes());
    }
    let _gone = disable_raw_mode();
}

fn add(sequences: &mut String, command: impl Command) {
    let _infallible = command.write_ansi(sequences);
}

/// Writes all of it, if the terminal takes it within [`PATIENCE`].
fn write_in_time(mut output: &File, mut bytes: &[u8]) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&output, PollFlags::OUT)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match output.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a write may succeed later.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether another process group has the terminal. One that is not ours to control has no groups.
pub(super) fn is_in_background() -> bool {
    tcgetpgrp(stdout()).is_ok_and(|group| group != getpgrp())
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
