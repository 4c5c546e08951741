//! The `trafctl` command: parses its arguments, prints an error once, and chooses the exit status.

use std::{io::IsTerminal as _, process::ExitCode};

use tracing_subscriber::EnvFilter;
use trafctl::{
    cli::{self, Cli, Done},
    heap, inherited,
    kernel::expedite,
    log::Lines,
    privileges,
};

fn main() -> ExitCode {
    let cli = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return cli::print_usage(&error),
    };
    inherited::set_up_signals();
    if cli.stays() {
        heap::share();
    }
    let log = match Lines::to_stderr() {
        Ok(log) => log,
        Err(error) => {
            cli::print_error(
                &anyhow::Error::new(error).context("cannot start the thread that writes the log"),
            );
            return ExitCode::FAILURE;
        }
    };
    log_to(log.clone(), cli.verbosity());
    privileges::tighten_umask();
    let done = cli.run();
    expedite::end_of_process();
    log.finish();
    match done {
        Ok(Done::Success) => ExitCode::SUCCESS,
        Ok(Done::ProblemsFound) => ExitCode::FAILURE,
        Ok(Done::Status(status)) => ExitCode::from(status),
        Err(error) => {
            cli::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Logs level and text, without a time: the reader knows it, and so does the journal.
fn log_to(log: Lines, verbosity: u8) {
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // Libraries stay quiet unless TRAFCTL_LOG says otherwise.
    let filter = EnvFilter::try_from_env("TRAFCTL_LOG").unwrap_or_else(|_| {
        EnvFilter::new(format!(
            "warn,trafctl={level},traffic_ledger={level},traffic_store={level},trafctl_ebpf=debug,aya=error,netlink_proto=error"
        ))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || log.clone())
        .with_ansi(std::io::stderr().is_terminal())
        // It would report a failed write to stderr on stderr, and panic when that fails too.
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .init();
}
