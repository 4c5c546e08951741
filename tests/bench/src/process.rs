//! Measures the time of other programs.

use std::{
    io,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use traffic_tests::process::run_ok;

/// The time of a program.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Elapsed time in seconds.
    pub wall: f64,
    /// CPU time in seconds, of the program and of the kernel for it.
    pub cpu: f64,
}

/// Runs a program to its end and discards its output.
pub fn timed(command: &mut Command) -> Result<Taken> {
    timed_ending(command, &[0])
}

/// The same for a program that may end with any of these statuses.
pub fn timed_ending(command: &mut Command, statuses: &[i32]) -> Result<Taken> {
    let cpu_before = children_cpu()?;
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    let wall = start.elapsed().as_secs_f64();
    if !status.code().is_some_and(|code| statuses.contains(&code)) {
        // Repeated to get its output for the error.
        run_ok(command)?;
        bail!("{command:?} failed ({status}), and succeeded when it was repeated");
    }
    Ok(Taken { wall, cpu: children_cpu()? - cpu_before })
}

/// CPU time in seconds of all children that have ended.
fn children_cpu() -> Result<f64> {
    // SAFETY: the structure has only integers, which may be zero.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes only within the structure.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error()).context("getrusage");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
