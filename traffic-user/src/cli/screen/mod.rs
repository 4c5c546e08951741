//! The live screen of `top` and `dump --watch` on a terminal: keys, signals and readings come in, frames go
//! out.
//!
//! The counters are read on a thread of their own, so that a slow reading holds up neither keys nor frames.
//! What is shown is decided in `render::screen`.

mod guard;
mod keys;
mod reader;

use std::{
    io::{Stdout, stdout},
    time::Duration,
};

use anyhow::Context as _;
use ratatui::{Terminal, backend::CrosstermBackend, layout::Rect};
use tokio::signal::unix::{SignalKind, signal};

use self::guard::Guard;
use crate::{
    cli::{Done, terminal},
    render::screen::{Action, Screen, Start, draw},
};

pub(super) use self::reader::Read;

/// Whether output is for a screen: a terminal on which the cursor can be moved, and that knows its size. A serial
/// line may not.
pub(super) fn is_possible() -> bool {
    terminal::is_output()
        && terminal::columns().is_some()
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Shows the screen until it is left.
///
/// # Errors
/// When the terminal cannot be set up or written to.
pub(super) async fn run(start: Start, interval: Duration, read: Read) -> anyhow::Result<Done> {
    let mut signals = Signals::new()?;
    let mut readings = reader::start(interval, read)?;
    let guard = Guard::enter().context("cannot set up the terminal")?;
    // From here on, keys are read.
    let mut keys = keys::start()?;
    let mut frames = Terminal::new(CrosstermBackend::new(stdout())).context("cannot set up the terminal")?;
    let mut screen = Screen::new(start);
    loop {
        frames.draw(|frame| draw(&mut screen, frame)).context("cannot write to the terminal")?;
        let action = tokio::select! {
            event = keys.recv() => match event {
                Some(keys::Event::Key(key)) => screen.press(key),
                Some(keys::Event::Resized) => Action::Draw,
                // The terminal is gone.
                None => Action::Quit,
            },
            reading = readings.recv() => match reading {
                Some(Ok((snapshot, names))) => {
                    screen.take(snapshot, names);
                    Action::Draw
                }
                Some(Err(problem)) => {
                    screen.miss(problem);
                    Action::Draw
                }
                None => Action::Quit,
            },
            ended = signals.next() => match ended {
                Ended::Interrupted => Action::Quit,
                Ended::Stopped => Action::Suspend,
                Ended::By(signal) => {
                    drop(guard);
                    return guard::end_by(signal);
                }
            },
        };
        match action {
            Action::Draw => {}
            Action::Redraw => forget(&mut frames)?,
            Action::Quit => return Ok(Done::Success),
            Action::Suspend => {
                guard.suspend()?;
                forget(&mut frames)?;
            }
        }
    }
}

/// Clears the terminal, so that the next frame is drawn as a whole. `Terminal::clear` would ask the terminal where
/// its cursor is, and the thread that reads keys would take the answer.
fn forget(frames: &mut Terminal<CrosstermBackend<Stdout>>) -> anyhow::Result<()> {
    let cleared = frames.size().and_then(|size| frames.resize(Rect::new(0, 0, size.width, size.height)));
    cleared.context("cannot write to the terminal")
}

/// The signals that end or stop a program of a terminal.
struct Signals {
    interrupted: tokio::signal::unix::Signal,
    ended: tokio::signal::unix::Signal,
    hung_up: tokio::signal::unix::Signal,
    stopped: tokio::signal::unix::Signal,
}

enum Ended {
    Interrupted,
    Stopped,
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
        })
    }

    async fn next(&mut self) -> Ended {
        use rustix::process::Signal;
        tokio::select! {
            _ = self.interrupted.recv() => Ended::Interrupted,
            _ = self.stopped.recv() => Ended::Stopped,
            _ = self.ended.recv() => Ended::By(Signal::TERM),
            _ = self.hung_up.recv() => Ended::By(Signal::HUP),
        }
    }
}
