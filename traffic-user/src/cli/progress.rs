//! How far a long step is, drawn on a terminal and nowhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on stderr, gone when dropped. Draws nothing where stderr is no terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of a step that is called so.
    pub(super) fn start(name: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} % {eta:>4}") {
            bar.set_style(style);
        }
        bar.set_message(name);
        Self(bar)
    }

    /// So much is done, of so much.
    pub(super) fn set(&self, done: usize, of: usize) {
        self.0.set_length(of as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
