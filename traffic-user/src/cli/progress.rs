//! The progress of a long step, drawn on stderr while it is a terminal.

use std::{
    io::{IsTerminal as _, stderr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use traffic_ledger::{MigrationProgress, OnProgress};

use crate::cli::output::print_message;

/// When the first line about a migration is due, and the time between two lines.
const LINES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

/// Shows the progress of a migration: a bar on a terminal, elsewhere a line now and then. A short one shows
/// nothing.
pub(super) fn of_migration() -> OnProgress {
    let is_terminal = stderr().is_terminal();
    let (bar, due) = (Mutex::new(None), Mutex::new(None));
    Arc::new(move |step: MigrationProgress| {
        if is_terminal {
            let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
            match step {
                MigrationProgress::Copying { done, total } => {
                    let bar =
                        bar.get_or_insert_with(|| Progress::start("copying the ledger before its migration"));
                    let of = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
                    bar.set(of(done), of(total));
                }
                _ => *bar = None,
            }
            return;
        }
        let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if *due.get_or_insert(now + LINES[0]) <= now {
            *due = Some(now + LINES[1]);
            print_message(&step.to_string());
        }
    })
}

/// A progress bar, removed when dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Starts the bar of a step with this name.
    pub(super) fn start(name: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} % {eta:>4}") {
            bar.set_style(style);
        }
        bar.set_message(name);
        Self(bar)
    }

    /// Starts the counter of a step of unknown length.
    pub(super) fn counter(name: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {human_pos}") {
            bar.set_style(style);
        }
        bar.set_message(name);
        Self(bar)
    }

    /// Shows that `done` units are done.
    pub(super) fn count(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Shows that `done` of `total` units are done.
    pub(super) fn set(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
