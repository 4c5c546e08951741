//! The demonstration behind `cargo xtask demo`: real traffic on temporary nodes, and trafctl's figures beside those of
//! the senders.

mod fleet;
mod node;
mod supervised;

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use traffic_tests::interrupt;

fn main() -> ExitCode {
    let has = |option: &str| env::args().skip(1).any(|argument| argument == option);
    let (keep, is_fleet) = (has("--keep"), has("--fleet"));
    let done = if has(supervised::WORKER) {
        interrupt::catch().and_then(|()| if is_fleet { fleet::run() } else { node::run(keep) })
    } else {
        return supervised::run(keep).unwrap_or_else(|error| fails(&format!("{error:#}")));
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => fails("the figures differ from the senders' counts"),
        // Whatever failed for it.
        Err(_) if interrupt::check().is_err() => fails("interrupted"),
        Err(error) => fails(&format!("{error:#}")),
    }
}

fn fails(why: &str) -> ExitCode {
    // There is nowhere to report that stderr is closed.
    let _closed = writeln!(io::stderr(), "{why}");
    ExitCode::FAILURE
}

/// Shows what begins now, unless the user wants the end.
fn step(text: &str) -> Result<()> {
    interrupt::check()?;
    let mut stderr = io::stderr();
    writeln!(stderr, "==> {text}").context("cannot write to standard error")?;
    // Standard output that follows must appear after this on a terminal.
    stderr.flush().context("cannot write to standard error")
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}
