//! The progress of a long step, drawn on stderr while it is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
