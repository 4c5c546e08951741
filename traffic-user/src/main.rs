//! The `trafctl` command: parses its arguments, prints an error once, and chooses the exit status.

use std::{io::IsTerminal as _, process::ExitCode};

use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};
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
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Libraries stay quiet unless TRAFCTL_LOG says otherwise.
    let filter = std::env::var("TRAFCTL_LOG")
        .ok()
        .and_then(|targets| targets.parse::<Targets>().ok())
        .unwrap_or_else(|| targets(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || log.clone())
        .with_ansi(std::io::stderr().is_terminal())
        // It would report a failed write to stderr on stderr, and panic when that fails too.
        .log_internal_errors(false)
        .with_target(false)
        .without_time();
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// Who logs from which level on.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(["trafctl", "traffic_ledger", "traffic_store"].map(|ours| (ours, level)))
        .with_target("trafctl_ebpf", LevelFilter::DEBUG)
        .with_targets(["aya", "netlink_proto"].map(|library| (library, LevelFilter::ERROR)))
}
