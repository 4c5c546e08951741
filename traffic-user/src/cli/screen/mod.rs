//! The live screen of `top` and `dump --watch` on a terminal: keys, signals and readings come in, frames go
//! out.
//!
//! The counters are read on a thread of their own, so that a slow reading holds up neither keys nor frames.
//! What is shown is decided in `render::screen`.

mod frames;
mod guard;
mod key_codes;
mod keys;
mod names;
mod reader;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{frames::Frames, guard::Guard};
use crate::{
    cli::{Done, terminal},
    render::screen::{Action, Reading, Screen, Start},
};

pub(super) use self::{names::Names, reader::Read};

/// Whether output is for a screen: a terminal on which the cursor can be moved, that knows its size, and that has
/// keys. A serial line may not know its size, and a command without a session has no keys.
pub(super) fn is_possible() -> bool {
    terminal::is_output()
        && terminal::columns().is_some()
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
        && keys::are_possible()
}

/// Shows the screen until it is left.
///
/// # Errors
/// When the terminal cannot be set up or written to, and when a thread failed.
pub(super) async fn run(start: Start, interval: Duration, read: Read) -> anyhow::Result<Done> {
    let mut signals = Signals::new()?;
    let readings = reader::start(interval, read)?;
    let guard = Guard::enter().context("cannot set up the terminal")?;
    let ended = show(&guard, &mut signals, readings, Screen::new(start)).await;
    drop(guard);
    match ended {
        Ok(None) => Ok(Done::Success),
        Ok(Some(signal)) => guard::end_by(signal),
        // Whatever failed: a terminal that is gone can neither be written to nor asked for its size.
        Err(_) if keys::is_terminal_gone() => guard::end_by(rustix::process::Signal::HUP),
        Err(error) => Err(error),
    }
}

/// Draws, and acts on what comes, until the end. Returns the signal by which to end, if it is one.
async fn show(
    guard: &Guard,
    signals: &mut Signals,
    mut readings: mpsc::Receiver<Result<Reading, String>>,
    mut screen: Screen,
) -> anyhow::Result<Option<rustix::process::Signal>> {
    // From here on, keys are read.
    let mut keys = keys::start()?;
    let mut frames = Frames::new(guard)?;
    let mut has_changed = true;
    // Whether another process had the terminal.
    let mut is_lost = false;
    loop {
        is_lost |= guard::is_in_background();
        if is_lost && !guard::is_in_background() {
            frames.take_again(guard)?;
            (is_lost, has_changed) = (false, true);
        }
        // A terminal that is slow gets fewer frames, and always the newest.
        if has_changed && !is_lost && frames.are_written() {
            frames.draw(&mut screen)?;
            has_changed = false;
        }
        let action = tokio::select! {
            biased;
            signalled = signals.next() => match signalled {
                Signalled::Interrupted => Action::Quit,
                Signalled::Stopped => Action::Suspend,
                // The terminal may have become smaller and then as large as before since the last frame. Then no size
                // differs, but what was cut off is gone.
                Signalled::Resized => Action::Redraw,
                Signalled::Continued => {
                    is_lost = true;
                    continue;
                }
                Signalled::By(signal) => return Ok(Some(signal)),
            },
            event = keys.recv() => match event {
                Some(keys::Event::Key(key)) => screen.press(key),
                Some(keys::Event::Failed(error)) => return Err(error).context("cannot read keys"),
                Some(keys::Event::Gone) => return Ok(Some(rustix::process::Signal::HUP)),
                None => bail!("the thread that reads keys failed"),
            },
            reading = readings.recv() => match reading {
                Some(Ok(reading)) => {
                    screen.take(reading);
                    Action::Draw
                }
                Some(Err(problem)) => {
                    screen.miss(problem);
                    Action::Draw
                }
                None => bail!("the thread that reads the counters failed"),
            },
            written = frames.write(guard), if !is_lost && !frames.are_written() => {
                written?;
                continue;
            }
        };
        has_changed = true;
        match action {
            Action::Draw => {}
            Action::Redraw => frames.forget()?,
            Action::Quit => return Ok(None),
            Action::Suspend => {
                guard.suspend()?;
                is_lost = true;
            }
        }
    }
}

/// The signals that end or stop a program of a terminal, or say that its terminal changed.
struct Signals {
    interrupted: tokio::signal::unix::Signal,
    ended: tokio::signal::unix::Signal,
    hung_up: tokio::signal::unix::Signal,
    stopped: tokio::signal::unix::Signal,
    continued: tokio::signal::unix::Signal,
    resized: tokio::signal::unix::Signal,
}

enum Signalled {
    Interrupted,
    Stopped,
    /// Whoever stops a process by SIGSTOP gives it no chance to leave the terminal, and a shell sets it up for itself.
    Continued,
    /// The terminal has another size, or its owner asks for a whole frame.
    Resized,
    By(rustix::process::Signal),
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            interrupted: of(SignalKind::interrupt())?,
            ended: of(SignalKind::terminate())?,
            hung_up: of(SignalKind::hangup())?,
            stopped: of(SignalKind::from_raw(libc::SIGTSTP))?,
            continued: of(SignalKind::from_raw(libc::SIGCONT))?,
            resized: of(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Signalled {
        use rustix::process::Signal;
        tokio::select! {
            _ = self.interrupted.recv() => Signalled::Interrupted,
            _ = self.stopped.recv() => Signalled::Stopped,
            _ = self.continued.recv() => Signalled::Continued,
            _ = self.resized.recv() => Signalled::Resized,
            _ = self.ended.recv() => Signalled::By(Signal::TERM),
            _ = self.hung_up.recv() => Signalled::By(Signal::HUP),
        }
    }
}
