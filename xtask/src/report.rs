//! Progress of a task: one line for each step, and a spinner with the last line of output while a step runs.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Wide enough for the longest name of a step.
const NAME_WIDTH: usize = 18;

/// Prints the outcome of a step as one line.
#[expect(clippy::print_stdout, reason = "these lines are the output of the task")]
pub fn line(mark: char, name: &str, outcome: &str) {
    println!("{mark} {name:NAME_WIDTH$} {outcome}");
}

/// Prints the headline of a step whose own output follows.
pub fn headline(name: &str) {
    eprintln!("==> {name}");
}

/// A running step. Its drop removes the spinner.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    /// Shows that a step has begun: as a spinner on a terminal, as a plain line elsewhere.
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

    /// Shows the latest line of the step's output.
    pub fn note(&self, text: &str) {
        if !text.is_empty() {
            self.bar.set_message(text.to_owned());
        }
    }

    /// Prints the output of a failed step.
    pub fn dump(&self, output: &str) {
        self.bar.suspend(|| eprint!("{output}"));
    }

    /// The time since the start, in whole seconds.
    pub fn elapsed(&self) -> String {
        format!("{} s", self.start.elapsed().as_secs())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
