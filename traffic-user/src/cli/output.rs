//! Where a command writes: results to stdout, messages and errors to stderr.

use std::{
    io::{IsTerminal as _, Write as _, stderr, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::error::ErrorKind;
use tokio::time;

use crate::privileges;

/// Writes a result to stdout. A reader that has closed the pipe is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes a result that is no text to stdout.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    write(bytes).map(|_is_read| ())
}

/// Writes one of several results to stdout; `false` when nobody reads them any more.
pub(super) fn print_one(text: &str) -> anyhow::Result<bool> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut stdout = stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("cannot write to standard output"),
    }
}

/// Writes an error to stderr as `trafctl: WHAT: WHY; WHAT TO DO`, with the capability that this process may
/// lack.
pub fn print_error(error: &anyhow::Error) {
    match privileges::hint(error) {
        Some(hint) => print_message(&format!("{error:#}; {hint}")),
        None => print_message(&format!("{error:#}")),
    }
}

/// Prints what clap returned instead of a command: help goes to stdout with status 0, a wrong command line to
/// stderr with status 2, under the program's name.
pub fn print_usage(error: &clap::Error) -> ExitCode {
    // Without a command, clap returns the help as an error.
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let text = error.render();
        let text = if stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
        let _closed = write!(stderr().lock(), "{}", text.replacen("error:", "trafctl:", 1));
    } else {
        let text = error.render();
        let text = if stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
        if let Err(error) = print(&text) {
            print_error(&error);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Writes a line to stderr under the program's name. Nothing is left to do when stderr is closed.
pub(super) fn print_message(text: &str) {
    let _closed = writeln!(stderr().lock(), "trafctl: {text}");
}

/// Writes text to stderr as it is. Nothing is left to do when stderr is closed.
pub(super) fn print_plain(text: &str) {
    let _closed = write!(stderr().lock(), "{text}");
}

/// Waits; `false` when interrupted with Ctrl-C.
pub(super) async fn pause(interval: Duration) -> anyhow::Result<bool> {
    tokio::select! {
        () = time::sleep(interval) => Ok(true),
        result = tokio::signal::ctrl_c() => {
            result?;
            Ok(false)
        }
    }
}
