//! How a task says how far it is: one line a step, and a spinner with the last line of output while a step runs.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Wide enough for the longest name of a step.
const NAME_WIDTH: usize = 18;

/// One line on what became of a step.
#[expect(clippy::print_stdout, reason = "the lines are what the task is asked for")]
pub fn line(mark: char, name: &str, outcome: &str) {
    println!("{mark} {name:NAME_WIDTH$} {outcome}");
}

/// Headline of a step whose own output follows.
pub fn headline(name: &str) {
    eprintln!("==> {name}");
}

/// A running step. Dropping it takes the spinner away.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    /// Shows that a step has begun: a spinner on a terminal, a plain line elsewhere.
    pub fn start(name: &str, what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if stderr().is_terminal() {
            let template = format!("{{spinner}} {name:NAME_WIDTH$} {{elapsed}} {{wide_msg}}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            line('.', name, what);
        }
        Self { bar, start: Instant::now() }
    }

    /// The step's latest line of output.
    pub fn note(&self, text: &str) {
        if !text.is_empty() {
            self.bar.set_message(text.to_owned());
        }
    }

    /// Prints a failed step's output.
    pub fn dump(&self, output: &str) {
        self.bar.suspend(|| eprint!("{output}"));
    }

    /// Whole seconds since the start.
    pub fn elapsed(&self) -> String {
        format!("{} s", self.start.elapsed().as_secs())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
