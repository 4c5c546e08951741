//! Why the kernel refused a program.

use aya::programs::ProgramError;

/// The reason in one line: the verifier's log has hundreds, which go to the debug log.
pub(super) fn verdict(program: &str, error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
    let log = verifier_log.to_string();
    tracing::debug!("the verifier's log of {program}: {log}");
    let statistics = ["processed ", "verification time", "stack depth"];
    let line = log
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty() && !statistics.iter().any(|of| line.starts_with(of)));
    format!("{} ({io_error})", line.unwrap_or("no reason stated"))
}
